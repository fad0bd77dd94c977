// What the disk thread tells the control thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "daemon/device.h"
#include "daemon/peer_identity.h"
#include "daemon/sample_dir.h"
#include "daemon/sandbox.h"
#include "nvr/error.h"
#include "shm/disk_state.h"

namespace nvr::daemon {

class Connection;

struct DirectoryOpened {  // the engine runs; clients can be served
  std::string_view engine;
  std::string note;  // about the choice of engine, for the log; may be empty
  DirectoryIdentity identity;
  bool is_empty = false;
  Device device;
  Confinement confinement;         // of the disk thread
  std::string engine_confinement;  // Engine::confinement()
};
struct DirectoryMissing {  // tried again, with --wait-for-dir; sent once
  Error error;
};
struct StartFailed {  // the thread has ended
  Error error;
};
struct Detached {
  Connection* connection = nullptr;
};
struct Violation {  // the connection is condemned; DETACH it
  Connection* connection = nullptr;
  const char* offence = nullptr;
};
struct OperationReport {  // of one that was slow, or met an error of the disk
  shm::OldestOperation operation;
  std::uint64_t length = 0;  // bytes asked for from its offset on; 0: an open
  std::uint64_t duration_ns = 0;
  bool is_slow = false;
  int error = 0;  // errno; 0: none
  std::uint32_t connection = 0;
  PeerIdentity peer;
};
struct EngineNote {  // for the log
  std::string text;
};
struct EngineFailed {  // the thread has ended
  Error error;
};
using FromDisk = std::variant<std::monostate, DirectoryOpened, DirectoryMissing, StartFailed, Detached,
                              Violation, OperationReport, EngineNote, EngineFailed>;

}  // namespace nvr::daemon
