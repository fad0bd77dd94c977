// What a child process has to do without. Each holds for that child alone: the machine, and the tests that
// run on it at the same time, keep what they have.
#pragma once

#include <sys/resource.h>

#include <optional>
#include <string>

namespace nvr::test {

// A system call that fails with `error` (by a seccomp filter), whoever makes it; if its second argument is at
// least `from_second`.
struct DeniedCall {
  int number = 0;  // SYS_...
  int error = 0;
  unsigned from_second = 0;
};

struct Restrictions {
  std::optional<DeniedCall> denied = {};
  // RLIMIT_MEMLOCK. CAP_IPC_LOCK, to which it does not apply, goes for good, also for what the child
  // executes.
  std::optional<rlim_t> max_locked_bytes = {};
  // Path of a file that the child finds in the place of /proc/sys/kernel/io_uring_disabled, if any: what the
  // sysctl reads as. Needs root.
  std::string io_uring_disabled = {};
};

inline constexpr char kIoUringDisabled[] = "/proc/sys/kernel/io_uring_disabled";

// For children between fork and exec: async-signal-safe. False when the kernel refuses one of them.
[[nodiscard]] bool impose(const Restrictions& restrictions);

}  // namespace nvr::test
