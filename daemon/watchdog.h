// Is an operation stuck, and is the disk silent? Two questions: with io_uring one bad place holds up one
// stream, and the disk answers the others. Pure; the control thread asks at every heartbeat.
#pragma once

#include <cstdint>
#include <string>

#include "shm/disk_state.h"

namespace nvr::daemon {

// The oldest operation in flight, if it has been there for `least_ns`; or else kNone. `answered_ns`: when the
// disk last answered anything, or 0.
[[nodiscard]] shm::OldestOperation find_stuck(shm::OldestOperation oldest, std::uint64_t answered_ns,
                                              std::uint64_t least_ns, std::uint64_t now_ns);

// When to speak of an operation that is stuck: once when it has taken `slow_ns`, then each time that has
// doubled.
class Watchdog {
 public:
  explicit Watchdog(std::uint64_t slow_ns) : slow_ns_(slow_ns) {}

  // Is it time to warn of `oldest`, the oldest operation in flight (kNone: there is none)? An operation that
  // outlives a warned-of one without being older is part of the same episode and is not warned of anew.
  [[nodiscard]] bool should_warn(const shm::OldestOperation& oldest, std::uint64_t now_ns);

 private:
  std::uint64_t slow_ns_;
  std::uint64_t episode_since_ns_ = 0;  // 0: none
  std::uint64_t next_warning_ns_ = 0;   // age
};

// "read from 3/1842086 at offset 65536", "open 3/1842086".
[[nodiscard]] std::string to_string(const shm::OldestOperation& operation);
// "others were answered 0.2 s ago", "nothing else was answered for 12.0 s".
[[nodiscard]] std::string answers_beside(const shm::OldestOperation& stuck);

}  // namespace nvr::daemon
