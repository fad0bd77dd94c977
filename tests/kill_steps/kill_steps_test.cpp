// Killed at every step: clients and daemons are ended by SIGKILL at each named moment of handshake, open,
// publish, wake, take, release and close, in turn and at random. What the other side holds is the same
// afterwards.
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "tests/support/environment.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using std::chrono::seconds;

// Of clients, for each engine. NVR_KILLS says otherwise.
unsigned kills_wanted() {
  const char* const wanted = getenv("NVR_KILLS");
  return wanted != nullptr ? static_cast<unsigned>(std::atoi(wanted)) : scaled(2000U, 200U);
}
constexpr unsigned kBatch = scaled(500, 100);

std::vector<std::string> lines_of(const std::string& path, std::string_view beginning = {}) {
  std::ifstream file(path);
  std::set<std::string> lines;  // each once, in order
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(beginning)) lines.insert(line);
  return {lines.begin(), lines.end()};
}

ProgramResult run_client(const std::string& socket, const RecordingFile& file,
                         const std::vector<std::string>& more) {
  std::vector<std::string> words = {NVR_STEPS_CLIENT, socket, std::to_string(file.size),
                                    std::to_string(test_seed())};
  words.insert(words.end(), more.begin(), more.end());
  return run_program(words);
}

// The steps that a client comes to.
std::vector<std::string> steps_of_client(const Site& site, const RecordingFile& file) {
  const DaemonProcess daemon = site.start();
  const std::string census = site.root() / "census-of-clients";
  setenv("NVR_STEP_CENSUS", census.c_str(), 1);
  const ProgramResult result = run_client(daemon.socket(), file, {"census"});
  unsetenv("NVR_STEP_CENSUS");
  REQUIRE(result.exit == Exit{.code = 0, .signal = {}});
  return lines_of(census);
}

TEST_CASE("clients killed at every step leave the daemon as it was") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes + 5);
  const std::vector<std::string> steps = steps_of_client(site, file);
  REQUIRE(steps.size() >= 18);
  DaemonProcess daemon = site.start();
  {
    Client warm_up = connect_to(daemon);
    REQUIRE(problem_reading(warm_up, file) == "");
  }
  REQUIRE(daemon.wait_for_total("shared_bytes", 0));
  const Baseline baseline(daemon.pid());

  // Somebody who behaves, beside them, all the time.
  std::atomic<bool> over = false;
  std::atomic<int> passes = 0;
  std::string problem;
  std::thread beside([&] {
    Client client = connect_to(daemon);
    while (!over.load() && problem.empty()) {
      problem = problem_reading(client, file);
      ++passes;
    }
  });
  const auto come_to_rest = [&] {
    for (const char* const total : {"connections_now", "streams_open", "quarantined_bytes"}) {
      CAPTURE(total);
      // All but those of the one who behaves.
      REQUIRE(wait_until([&] { return daemon.total(total) <= 1; }));
    }
  };
  REQUIRE(wait_until([&] { return passes.load() > 0; }));
  come_to_rest();
  const Footprint before = footprint_of(daemon.pid());

  unsigned killed = 0;
  unsigned ended = 0;
  const unsigned wanted = kills_wanted();
  for (unsigned at = 0; killed < wanted; at += kBatch) {
    std::vector<std::string> words = {"kill", std::to_string(at), std::to_string(kBatch)};
    words.insert(words.end(), steps.begin(), steps.end());
    const ProgramResult result = run_client(daemon.socket(), file, words);
    REQUIRE(result.exit == Exit{.code = 0, .signal = {}});
    unsigned killed_now = 0;
    unsigned ended_now = 0;
    unsigned failed_now = 0;
    std::istringstream(result.output) >> killed_now >> ended_now >> failed_now;
    REQUIRE(killed_now + ended_now + failed_now == kBatch);
    CHECK(failed_now == 0);
    REQUIRE(killed_now > 0);
    killed += killed_now;
    ended += ended_now;
    come_to_rest();
    // What the well-behaved one has open at a moment may come and go: a file, and its map.
    CAPTURE(at);
    REQUIRE(wait_until([&] {
      const Footprint now = footprint_of(daemon.pid());
      return now.descriptors <= before.descriptors + 1 && now.threads <= before.threads + 40 &&
             now.shared_mappings <= before.shared_mappings + 1;
    }));
  }
  over = true;
  beside.join();
  CHECK(problem == "");
  CHECK(daemon.total("violations") == 0);
  for (const char* const total :
       {"connections_now", "streams_open", "shared_bytes", "held_bytes", "quarantined_bytes"}) {
    CAPTURE(total);
    CHECK(daemon.wait_for_total(total, 0));
  }
  const std::string difference = baseline.difference_after_waiting();
  WARN(steps.size() << " steps, " << killed << " clients killed, " << ended << " came to their end, "
                    << passes.load() << " recordings read beside them; difference to the daemon before: "
                    << (difference.empty() ? "0" : difference));
  CHECK(difference == "");
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
}

// A daemon built with steps.
Process start_daemon_with_steps(const Site& site, const Capture& log, const std::string& socket) {
  return spawn({.argv = {NVR_STEPS_READERD, "--dir", site.directory(), "--socket", socket, "--engine",
                         engine_under_test()},
                .uid = {},
                .max_descriptors = {}},
               log.fd(), log.fd());
}

// What a client sees whose daemon may die at any moment: right bytes, and then the end or Unavailable.
std::string problem_with_mortal_daemon(const std::string& socket, const RecordingFile& file) {
  auto client = Client::connect(socket, {.streams = 2, .slots_per_stream = 4});
  // It had died, or did in the handshake.
  if (!client) return client.error().code == Code::kUnavailable ? "" : to_string(client.error());
  auto stream = client->open({.recording = file.id});
  if (!stream) return stream.error().code == Code::kUnavailable ? "" : to_string(stream.error());
  ChunkChecker checker(file, 0, file.size);
  for (;;) {
    const auto next = stream->next(in(seconds(20)));
    if (!next) return checker.is_complete() ? "" : "ended too early";
    if (!*next) return next->error().code == Code::kUnavailable ? "" : to_string(next->error());
    if (!checker.accept(**next)) return checker.problem();
  }
}

TEST_CASE("daemons killed at every step leave their clients an error, and their path to the next one") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunkBytes + 5);
  const std::string socket = site.socket();
  const std::string census = site.root() / "census-of-daemons";
  {
    setenv("NVR_STEP_CENSUS", census.c_str(), 1);
    const Capture log;
    Process daemon = start_daemon_with_steps(site, log, socket);
    unsetenv("NVR_STEP_CENSUS");
    REQUIRE(wait_until([&] { return log.text().find("ready") != std::string::npos; }));
    for (int i = 0; i < 3; ++i) REQUIRE(problem_with_mortal_daemon(socket, file) == "");
    daemon.signal(SIGTERM);
    REQUIRE(daemon.wait().has_value());
  }
  const std::vector<std::string> steps = lines_of(census, "daemon.");
  REQUIRE(steps.size() >= 16);
  unsigned killed = 0;
  for (unsigned time = 1; time <= scaled(4U, 2U); ++time) {
    for (const std::string& step : steps) {
      CAPTURE(step, time);
      setenv("NVR_KILL_AT", (step + ":" + std::to_string(time)).c_str(), 1);
      const Capture log;
      Process daemon = start_daemon_with_steps(site, log, socket);
      unsetenv("NVR_KILL_AT");
      const bool is_up =
          wait_until([&] { return log.text().find("ready") != std::string::npos || !daemon.is_running(); });
      REQUIRE(is_up);
      for (int i = 0; i < 4 && daemon.is_running(); ++i)
        CHECK(problem_with_mortal_daemon(socket, file) == "");
      if (daemon.is_running()) daemon.signal(SIGTERM);  // it never came there so often
      const auto exit = daemon.wait();
      REQUIRE(exit.has_value());
      // By the plan, or in order: not because of what the one before left behind, or of the sandbox.
      const bool is_killed = *exit == Exit{.code = {}, .signal = SIGKILL};
      CAPTURE(to_string(*exit), log.text());
      CHECK((is_killed || *exit == Exit{.code = 0, .signal = {}}));
      CHECK((is_killed || time > 1));  // every step comes once
      killed += is_killed ? 1U : 0U;
    }
  }
  CHECK(killed >= steps.size());
  // Whoever comes next finds nothing in the way.
  const DaemonProcess next = site.start();
  Client client = connect_to(next);
  CHECK(problem_reading(client, file) == "");
  WARN(steps.size() << " steps, " << killed << " daemons killed");
}

}  // namespace
}  // namespace nvr::test
