// A child process of ours, ended and waited for when its owner goes.
#pragma once

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "nvr/error.h"

namespace nvr::bench {

class ChildProcess {
 public:
  ChildProcess() = default;
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }
  // Asks it to end, and after five seconds no longer asks.
  ~ChildProcess() {
    if (has_ended()) return;
    kill(pid_, SIGTERM);
    for (int i = 0; i < 1000 && !has_ended(); ++i) usleep(5000);
    if (has_ended()) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool has_ended() {
    if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
    return pid_ <= 0;
  }

  // Forks a child that does body() and ends with the exit code that it returns; or when it is asked to, or
  // when its parent ends, however that happens. Before the caller has threads that hold locks.
  template <class Body>
  [[nodiscard]] static Result<ChildProcess> fork(Body&& body) {
    const pid_t parent = getpid();
    const pid_t pid = ::fork();
    if (pid < 0) return fail_errno(errno, "cannot fork");
    if (pid > 0) return ChildProcess(pid);
    signal(SIGTERM, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);
    _exit(body());
  }

 private:
  pid_t pid_ = -1;
};

}  // namespace nvr::bench
