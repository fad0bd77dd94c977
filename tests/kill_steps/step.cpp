#include "tests/kill_steps/step.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>

#include "shm/step.h"

namespace nvr {
namespace {

constexpr std::size_t kMaxSteps = 128;

// Everything is set before main(), or by a process with one thread.
struct Plan {
  Plan() {
    const char* const census = getenv("NVR_STEP_CENSUS");
    if (census != nullptr) census_fd = open(census, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const char* const kill_at = getenv("NVR_KILL_AT");
    const char* const colon = kill_at != nullptr ? std::strrchr(kill_at, ':') : nullptr;
    if (colon == nullptr) return;
    step.assign(kill_at, colon);
    left = std::atoi(colon + 1);
  }
  int census_fd = -1;
  std::string step;
  std::atomic<int> left = 0;
  std::array<std::atomic<const char*>, kMaxSteps> known = {};
};
Plan plan;

// A name is one literal, so its address tells it apart in one translation unit; in two it is noted twice.
void note(const char* name) {
  for (std::atomic<const char*>& entry : plan.known) {
    const char* expected = nullptr;
    if (entry.compare_exchange_strong(expected, name)) {
      const std::string line = std::string(name) + "\n";
      static_cast<void>(!write(plan.census_fd, line.data(), line.size()));
      return;
    }
    if (std::strcmp(expected, name) == 0) return;
  }
}

}  // namespace

void shm::reached_step(const char* name) {
  if (plan.census_fd >= 0) note(name);
  if (plan.left.load() == 0 || plan.step != name) return;
  // By a call that the daemon's sandbox allows.
  if (plan.left.fetch_sub(1) == 1) syscall(SYS_tgkill, getpid(), gettid(), SIGKILL);
}

void test::plan_kill(const std::string& step, unsigned count) {
  plan.step = step;
  plan.left.store(static_cast<int>(count));
}

}  // namespace nvr
