// Which engine a daemon runs. Disk thread only: an engine belongs to the thread that makes it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "daemon/device.h"
#include "daemon/engine.h"

namespace nvr::daemon {

struct EngineSetup {
  std::uint32_t io_depth = 0;  // of io_uring; 0: what suits the device
  bool restrict_ring = true;   // to what the engine does, for good
};

struct ChosenEngine {
  std::unique_ptr<Engine> engine;
  std::string note;  // why it is not the one that --engine auto prefers; empty if it is
};

// `name`: mmap, io_uring, or auto, which is io_uring where that works and mmap, with a note, where not. An
// io_uring that was asked for and does not work is an error that names cause and remedy. `wakeups`: see
// Engine::wait().
[[nodiscard]] Result<ChosenEngine> make_engine(const std::string& name, const SampleDir& directory,
                                               int wakeups, const Device& device, const EngineSetup& setup);

}  // namespace nvr::daemon
