#include "daemon/watchdog.h"

#include "nvr/recording.h"

namespace nvr::daemon {

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

}  // namespace nvr::daemon
