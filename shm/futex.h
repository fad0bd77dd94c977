// The futex system calls on words shared between processes. (std::atomic::wait uses process-private futexes.)
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

namespace nvr::shm {

// Wakes at most one thread that sleeps on `word`; false if nobody did. Never blocks. Works on a read-only
// mapping.
bool futex_wake_one(const std::atomic<std::uint32_t>& word);

// Wakes every thread of this process that sleeps on the private `word`.
void futex_wake_private(std::atomic<std::uint32_t>& word);

// Sleeps while `shared == shared_seen` and `own == own_seen`, until `deadline_ns` (CLOCK_MONOTONIC). `shared`
// may lie in a read-only mapping; `own` is private to this process. Returns when either word was woken or has
// another value, at the deadline, or on a signal: callers look again in every case. (Linux 5.16; where
// futex_waitv is forbidden it sleeps on `shared` alone in slices of 10 ms, so that a change of `own` is seen
// late but not lost.)
void futex_wait_either(const std::atomic<std::uint32_t>& shared, std::uint32_t shared_seen,
                       const std::atomic<std::uint32_t>& own, std::uint32_t own_seen,
                       std::uint64_t deadline_ns);

}  // namespace nvr::shm
