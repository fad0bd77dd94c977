// --fail-fast: are new opens refused, because the disk has not answered anything for too long? Pure; the
// control thread asks at every heartbeat and tells the clients, whose library refuses (a disk thread that is
// stuck could not).
#pragma once

#include <cstdint>

#include "shm/disk_state.h"

namespace nvr::daemon {

class CircuitBreaker {
 public:
  // `patience_ns`: 0: nothing is ever refused.
  explicit CircuitBreaker(std::uint64_t patience_ns) : patience_ns_(patience_ns) {}

  // `oldest`: the oldest operation in flight (kNone: there is none). Returns whether refuses() has changed.
  bool update(const shm::OldestOperation& oldest) {
    const bool refused = refuses_;
    refuses_ = patience_ns_ != 0 && oldest.operation != shm::DiskOperation::kNone &&
               oldest.silent_ns >= patience_ns_;
    return refuses_ != refused;
  }
  [[nodiscard]] bool refuses() const { return refuses_; }

 private:
  std::uint64_t patience_ns_;
  bool refuses_ = false;
};

}  // namespace nvr::daemon
