// --fail-fast: are new opens refused, because the disk has not answered anything for too long? Pure; the
// control thread asks at every heartbeat and tells the clients, whose library refuses (a disk thread that is
// stuck could not).
#pragma once

#include <algorithm>
#include <cstdint>

#include "shm/disk_state.h"

namespace nvr::daemon {

class CircuitBreaker {
 public:
  // `patience_ns`: 0: nothing is ever refused.
  explicit CircuitBreaker(std::uint64_t patience_ns) : patience_ns_(patience_ns) {}

  // `oldest`: the oldest operation in flight (kNone: there is none); `answered_ns`: when the disk last
  // answered a probe (DiskProbe), or 0. Returns whether refuses() has changed.
  bool update(const shm::OldestOperation& oldest, std::uint64_t answered_ns, std::uint64_t now_ns) {
    const bool refused = refuses_;
    const std::uint64_t silent_since_ns = std::max(oldest.since_ns, answered_ns);
    refuses_ = patience_ns_ != 0 && oldest.operation != shm::DiskOperation::kNone &&
               now_ns >= silent_since_ns && now_ns - silent_since_ns >= patience_ns_;
    return refuses_ != refused;
  }
  [[nodiscard]] bool refuses() const { return refuses_; }

 private:
  std::uint64_t patience_ns_;
  bool refuses_ = false;
};

}  // namespace nvr::daemon
