// A child process of ours, ended and waited for when its owner goes.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <utility>

#include "nvr/error.h"
#include "tools/lab/failure.h"
#include "tools/lab/process.h"

namespace nvr::bench {

// What the laboratory throws, as a Result.
template <class Work>
[[nodiscard]] auto attempt(Work&& work) -> Result<decltype(work())> {
  try {
    return work();
  } catch (const lab::Failure& failure) {
    return fail(Code::kUnavailable, failure.what());
  }
}

class ChildProcess : public lab::Process {
 public:
  ChildProcess() : Process(-1) {}
  explicit ChildProcess(lab::Process process) : Process(std::move(process)) {}

  [[nodiscard]] bool has_ended() { return pid() <= 0 || !is_running(); }

  // Forks a child that does body() and ends with the exit code that it returns; or when it is asked to, or
  // when its parent ends, however that happens. Before the caller has threads that hold locks.
  template <class Body>
  [[nodiscard]] static Result<ChildProcess> fork(Body&& body) {
    return attempt([&] {
      return ChildProcess(lab::fork_child([&] {
        ::signal(SIGTERM, SIG_DFL);
        _exit(body());
      }));
    });
  }
};

}  // namespace nvr::bench
