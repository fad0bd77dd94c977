// The slow operations of late, and those that the disk failed at: what points at a bad sector. Bounded, in
// memory, the oldest go first. Control thread only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/disk_messages.h"
#include "shm/disk_state.h"

namespace nvr::daemon {

class StallLog {
 public:
  static constexpr std::size_t kEntries = 1024;

  void add(const OperationReport& report, std::int64_t ended_ms);  // wall clock, since the epoch

  struct Now {
    shm::OldestOperation stuck;  // kNone: nothing
    std::uint64_t now_ns = 0;
    std::uint64_t slow_ns = 0;       // from when on an operation is slow
    std::uint64_t reports_lost = 0;  // that never came here
  };
  // JSON, UTF-8, one line; the oldest first.
  [[nodiscard]] std::string json(const Now& now) const;

 private:
  struct Entry {
    OperationReport report;
    std::int64_t ended_ms = 0;
  };
  std::vector<Entry> entries_;  // a ring, once it is full
  std::uint64_t total_ = 0;
};

}  // namespace nvr::daemon
