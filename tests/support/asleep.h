// Is a thread of this process asleep on a futex? The kernel says which system call a thread is in.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "tests/support/proc.h"

namespace nvr::test {

[[nodiscard]] inline bool is_asleep_on_futex(pid_t thread) {
#ifdef SYS_futex_waitv
  constexpr long kFutexWaitv = SYS_futex_waitv;
#else
  constexpr long kFutexWaitv = 449;
#endif
  const std::string call = read_file("/proc/self/task/" + std::to_string(thread) + "/syscall");
  char* end = nullptr;
  const long number = std::strtol(call.c_str(), &end, 10);  // "running" is no number
  return end != call.c_str() && (number == kFutexWaitv || number == SYS_futex);
}

}  // namespace nvr::test
