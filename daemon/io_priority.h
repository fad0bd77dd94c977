// The disk thread's I/O priority, as the kernel's schedulers know it. BFQ honours the level; mq-deadline
// knows classes only, and all of ours are in the same: reads that the recorder's writes go before (class
// IDLE) would hold up everybody who waits behind them here, and such that go before the recorder's writes
// (class RT) would be at its cost.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "nvr/recording.h"

namespace nvr::daemon {

class IoPriority {
 public:
  // linux/ioprio.h is no C++, hence its names here: IOPRIO_WHO_PROCESS ...
  static constexpr int kWhoProcess = 1;

  // What the calling thread asks of the disk from now on is for `priority`. Best effort: a kernel without I/O
  // priorities does without.
  void use(Priority priority) {
    if (current_ == priority) return;
    current_ = priority;
    const int level = kLevels[static_cast<std::size_t>(priority)];
    syscall(SYS_ioprio_set, kWhoProcess, 0, kBestEffort | level);
  }

 private:
  static constexpr int kBestEffort = 2 << 13;  // ... and IOPRIO_CLASS_BE above IOPRIO_CLASS_SHIFT
  static constexpr std::array<int, kPriorities> kLevels = {0, 2, 5, 7};  // live, playback, export, scrub
  std::optional<Priority> current_;
};

}  // namespace nvr::daemon
