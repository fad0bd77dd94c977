#include "daemon/watchdog.h"

#include <algorithm>
#include <cstdio>

#include "nvr/recording.h"

namespace nvr::daemon {

shm::OldestOperation find_stuck(shm::OldestOperation oldest, std::uint64_t answered_ns,
                                std::uint64_t least_ns, std::uint64_t now_ns) {
  if (oldest.since_ns == 0 || now_ns < oldest.since_ns + least_ns) return {};
  oldest.stuck_ns = now_ns - oldest.since_ns;
  oldest.silent_ns = answered_ns < now_ns ? std::min(oldest.stuck_ns, now_ns - answered_ns) : 0;
  return oldest;
}

bool Watchdog::should_warn(const shm::OldestOperation& oldest, std::uint64_t now_ns) {
  const bool none = oldest.operation == shm::DiskOperation::kNone || now_ns < oldest.since_ns;
  const std::uint64_t age_ns = none ? 0 : now_ns - oldest.since_ns;
  if (age_ns < slow_ns_) {
    episode_since_ns_ = 0;
    return false;
  }
  if (episode_since_ns_ == 0) {
    episode_since_ns_ = oldest.since_ns;
    next_warning_ns_ = slow_ns_;
  }
  const std::uint64_t episode_ns = now_ns - episode_since_ns_;
  if (episode_ns < next_warning_ns_) return false;
  while (next_warning_ns_ <= episode_ns) next_warning_ns_ *= 2;
  return true;
}

std::string to_string(const shm::OldestOperation& operation) {
  const std::string recording = to_string(RecordingId::from_composite(operation.recording));
  if (operation.operation == shm::DiskOperation::kOpen) return "open " + recording;
  return "read from " + recording + " at offset " + std::to_string(operation.offset);
}

std::string answers_beside(const shm::OldestOperation& stuck) {
  char text[80];
  std::snprintf(text, sizeof(text),
                shm::answers_others(stuck, 0) ? "others were answered %.1f s ago"
                                              : "nothing else was answered for %.1f s",
                static_cast<double>(stuck.silent_ns) / 1e9);
  return text;
}

}  // namespace nvr::daemon
