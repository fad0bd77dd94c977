// What a child process has to do without. Each holds for that child alone: the machine, and the tests that
// run on it at the same time, keep what they have.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nvr::test {

// A system call that fails with `error` (by a seccomp filter), whoever makes it. Where arguments are named,
// only if all of them are so.
struct DeniedCall {
  // The lower half of an argument: of its bits in `mask`, at least `least` and at most `most`.
  struct Argument {
    unsigned index = 0;
    std::uint32_t least = 0;
    std::uint32_t most = UINT32_MAX;
    std::uint32_t mask = UINT32_MAX;
  };
  int number = 0;  // SYS_...
  int error = 0;
  std::vector<Argument> arguments = {};
};

struct Restrictions {
  std::vector<DeniedCall> denied = {};
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
