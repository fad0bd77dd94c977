// Every signal that can be caught: it ends the daemon as SIGTERM does, or changes nothing, or is the end of
// any program (a fault).
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

constexpr std::array kEnds = {SIGTERM, SIGINT, SIGQUIT};
constexpr std::array kFaults = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS};
// Nobody sends them for a reason, and there is nothing to say.
constexpr std::array kSilent = {SIGPIPE, SIGCHLD, SIGCONT, SIGURG, SIGWINCH,
                                SIGIO,   SIGXFSZ, SIGTTIN, SIGTTOU};

bool is_in(std::span<const int> signals, int signal) {
  return std::ranges::find(signals, signal) != signals.end();
}

std::vector<int> catchable_signals() {
  std::vector<int> signals;
  for (int signal = 1; signal <= SIGRTMAX; ++signal)
    if (signal != SIGKILL && signal != SIGSTOP && (signal < 32 || signal >= SIGRTMIN))
      signals.push_back(signal);
  return signals;
}

std::string name_of(int signal) {
  if (signal >= SIGRTMIN) return "SIGRTMIN+" + std::to_string(signal - SIGRTMIN) + " ";
  return std::string("SIG") + sigabbrev_np(signal) + " ";
}

TEST_CASE("every signal that can be caught ends the daemon cleanly, or is said and changes nothing") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  Stream open = open_stream(client, file);
  REQUIRE(daemon.wait_for_total("chunks", 4));
  for (const int signal : catchable_signals()) {
    if (is_in(kEnds, signal) || is_in(kFaults, signal)) continue;
    CAPTURE(signal);
    daemon.signal(signal);
    if (!is_in(kSilent, signal)) CHECK(daemon.wait_for_log(name_of(signal)));
    CHECK(daemon.total("connections_now") == 1);
    CHECK(state_of_thread(daemon.pid(), daemon.pid()) != 'T');
  }
  CHECK(problem_reading(open, file, 0, file.size) == "");
  CHECK_THAT(daemon.log(), Contains("SIGHUP from pid " + std::to_string(getpid()) + " uid " +
                                    std::to_string(getuid()) + ": nothing is read again"));
}

TEST_CASE("each signal that asks for the end is the end, with a line that names it", "[once]") {
  for (const int signal : kEnds) {
    CAPTURE(signal);
    const Site site;
    DaemonProcess daemon = site.start();
    Client client = connect_to(daemon);
    daemon.signal(signal);
    CHECK(to_string(daemon.wait().value_or(Exit{})) == "exit 0");
    CHECK_THAT(daemon.log(),
               Contains("stopping on " + name_of(signal) + "from pid " + std::to_string(getpid())));
    CHECK_FALSE(std::filesystem::exists(site.socket()));
  }
}

TEST_CASE("a fault ends the daemon by its signal, and the next one takes the socket over", "[once][plain]") {
  const Site site;
  for (const int signal : kFaults) {
    CAPTURE(signal);
    DaemonProcess daemon = site.start();
    Client client = connect_to(daemon);
    daemon.signal(signal);
    CHECK(to_string(daemon.wait().value_or(Exit{})) == "signal " + std::to_string(signal));
  }
  const DaemonProcess next = site.start();
  CHECK(next.total("connections_now") == 0);
}

TEST_CASE("a storm of signals delays nobody, and the log has the first of them only", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const DaemonProcess daemon = site.start();
  for (int i = 0; i < 5'000; ++i) {
    sigval value = {};
    // A queue of signals that is full refuses more: then there are enough.
    if (sigqueue(daemon.pid(), SIGRTMIN + 1, value) != 0) break;
  }
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  CHECK(daemon.wait_for_log("more lines about signals were left out"));
}

}  // namespace
}  // namespace nvr::test
