// Counts the system calls that another process makes, by the kernel's own tracepoint: nothing is stopped or
// slowed down for it, as it would be under ptrace. Needs root. Test thread only.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shm/unique_fd.h"

namespace nvr::test {

class SystemCalls {
 public:
  // Why none can be counted on this machine; nothing where it can be done.
  [[nodiscard]] static std::optional<std::string> missing();

  // Of all threads that the process has now, but for the calls of these numbers. Throws where missing() has a
  // reason.
  explicit SystemCalls(pid_t process, const std::vector<long>& but_for = {});
  // Of one thread.
  [[nodiscard]] static SystemCalls of_thread(pid_t thread, const std::vector<long>& but_for = {});

  [[nodiscard]] std::uint64_t count() const;  // since construction

 private:
  SystemCalls() = default;
  void add_thread(pid_t thread, const std::vector<long>& but_for);

  std::vector<shm::UniqueFd> counters_;
};

}  // namespace nvr::test
