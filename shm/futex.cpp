#include "shm/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>

#include "shm/clock.h"

namespace nvr::shm {
namespace {

timespec to_timespec(std::uint64_t ns) {
  return {.tv_sec = static_cast<time_t>(ns / kSecond), .tv_nsec = static_cast<long>(ns % kSecond)};
}

futex_waitv waiter(const std::atomic<std::uint32_t>& word, std::uint32_t seen, std::uint32_t flags) {
  return {.val = seen, .uaddr = reinterpret_cast<std::uintptr_t>(&word), .flags = flags, .__reserved = 0};
}

}  // namespace

bool futex_wake_one(const std::atomic<std::uint32_t>& word) {
  return syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0) > 0;
}

void futex_wake_private(std::atomic<std::uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void futex_wait_either(const std::atomic<std::uint32_t>& shared, std::uint32_t shared_seen,
                       const std::atomic<std::uint32_t>& own, std::uint32_t own_seen,
                       std::uint64_t deadline_ns) {
  std::array<futex_waitv, 2> words = {waiter(shared, shared_seen, FUTEX_32),
                                      waiter(own, own_seen, FUTEX_32 | FUTEX_PRIVATE_FLAG)};
  const timespec deadline = to_timespec(deadline_ns);
  if (syscall(SYS_futex_waitv, words.data(), words.size(), 0, &deadline, CLOCK_MONOTONIC) >= 0) return;
  if (errno != ENOSYS && errno != EPERM) return;
  if (own.load() != own_seen) return;
  const timespec slice = to_timespec(std::min(deadline_ns, now_ns() + 10 * kMillisecond));
  syscall(SYS_futex, &shared, FUTEX_WAIT_BITSET, shared_seen, &slice, nullptr, FUTEX_BITSET_MATCH_ANY);
}

}  // namespace nvr::shm
