// For how long in all some operation had been stuck: the union of what is recorded, although operations
// overlap, and although one is recorded again and again while it goes on. Pure; the control thread's.
#pragma once

#include <algorithm>
#include <cstdint>

namespace nvr::daemon {

class StallClock {
 public:
  // Some operation was stuck in [since_ns, until_ns).
  void record(std::uint64_t since_ns, std::uint64_t until_ns) {
    const std::uint64_t from_ns = std::max(since_ns, counted_until_ns_);
    if (until_ns <= from_ns) return;
    stalled_ns_ += until_ns - from_ns;
    counted_until_ns_ = until_ns;
  }
  [[nodiscard]] std::uint64_t stalled_ns() const { return stalled_ns_; }

 private:
  std::uint64_t stalled_ns_ = 0;
  std::uint64_t counted_until_ns_ = 0;
};

}  // namespace nvr::daemon
