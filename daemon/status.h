// The status text: what the daemon tells `nvr-readerctl status` about itself. Control thread only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/admission.h"
#include "daemon/connection.h"
#include "daemon/peers.h"
#include "daemon/statistics.h"
#include "shm/disk_state.h"

namespace nvr::daemon {

// Everything that status shows. Borrowed for the call.
struct StatusSources {
  std::string_view engine;
  std::string_view directory;
  std::string_view device_kind;
  bool has_visits = false;  // a spinning disk
  std::uint64_t instance = 0;
  std::uint64_t uptime_ns = 0;
  std::uint64_t now_ns = 0;
  shm::OldestOperation stall;
  bool refuses_opens = false;  // kNone: the disk is not stuck
  std::uint32_t operations_in_flight = 0;
  Peers::Totals peers;
  Peers::Leaving leaving;
  std::uint64_t lost_lines = 0;  // of the log
  const Admission& admission;
  const DiskStatistics& disk;
  std::vector<const Connection*> connections;
};

// JSON, UTF-8, one line. Every histogram's bucket counts sum up to its count.
[[nodiscard]] std::string status_json(const StatusSources& sources);

}  // namespace nvr::daemon
