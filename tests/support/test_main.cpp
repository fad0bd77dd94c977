// The main program of every test executable, and what it watches over in each test case: a time limit, the
// seed, and leaked descriptors.
#define CATCH_CONFIG_RUNNER
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "tests/support/environment.h"
#include "tests/support/proc.h"
#include "tests/support/wait.h"

// Tests fork while they have threads; the children only start threads of their own.
extern "C" const char* __tsan_default_options();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __tsan_default_options() {
  return "die_after_fork=0";
}

namespace nvr::test {
namespace {

char alarm_text[512];  // prepared in advance: the handler may only write

void on_alarm(int) {
  static_cast<void>(!write(STDERR_FILENO, alarm_text, strlen(alarm_text)));
  void* frames[64];
  backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
  abort();
}

class Watch : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;

  void testCaseStarting(const Catch::TestCaseInfo& info) override {
    TestEventListenerBase::testCaseStarting(info);
    restart_random(info.name);
    std::fprintf(stderr, "[%s] NVR_TEST_SEED=%" PRIu64 " engine=%s\n", info.name.c_str(), test_seed(),
                 engine_under_test().c_str());
    const unsigned limit_s = scaled(300u, 800u);
    std::snprintf(alarm_text, sizeof(alarm_text),
                  "\nTIMEOUT: '%s' did not end within %u s (NVR_TEST_SEED=%" PRIu64
                  "). Where the main thread is (addr2line -Cfpe %s shows lines; gdb shows all threads):\n",
                  info.name.c_str(), limit_s, test_seed(), program_invocation_name);
    descriptors_before_ = descriptors_of(getpid());
    alarm(limit_s);
  }

  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    alarm(0);
    TestEventListenerBase::testCaseEnded(stats);
    const auto is_clean = [&] { return descriptors_of(getpid()).size() <= descriptors_before_.size(); };
    if (wait_until(is_clean, std::chrono::seconds(5))) return;
    std::string leaked;
    for (const auto& [fd, target] : descriptors_of(getpid())) {
      if (!descriptors_before_.contains(fd)) leaked += "\n  " + std::to_string(fd) + " -> " + target;
    }
    report_late_failure("'" + stats.testInfo.name + "' leaked descriptors:" + leaked);
  }

 private:
  std::map<int, std::string> descriptors_before_;
};

CATCH_REGISTER_LISTENER(Watch)

}  // namespace
}  // namespace nvr::test

// The daemon ends without a join with its disk thread, by design: that is no leak.
static void set_sanitizer_options() {
  const char* const given = getenv("TSAN_OPTIONS");
  const std::string options = std::string(given != nullptr ? given : "") + " report_thread_leaks=0";
  setenv("TSAN_OPTIONS", options.c_str(), 1);
}

int main(int argc, char** argv) {
  set_sanitizer_options();
  void* warm_up[1];
  static_cast<void>(backtrace(warm_up, 1));  // loads libgcc now rather than in the handler
  signal(SIGALRM, nvr::test::on_alarm);
  signal(SIGPIPE, SIG_IGN);
  umask(022);

  Catch::Session session;
  std::string engine = nvr::test::engine_under_test();
  session.cli(session.cli() |
              Catch::clara::Opt(engine, "mmap|io_uring")["--engine"]("engine of the daemons"));
  if (const int wrong = session.applyCommandLine(argc, argv); wrong != 0) return wrong;
  // The command line takes one --warn only.
  session.configData().warnings =
      static_cast<Catch::WarnAbout::What>(Catch::WarnAbout::NoTests | Catch::WarnAbout::NoAssertions);
  nvr::test::set_engine_under_test(engine);
  const int result = session.run();
  return result == 0 && nvr::test::has_late_failures() ? 1 : result;
}
