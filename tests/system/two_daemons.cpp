// One daemon per disk: what happens to one is nothing to the clients of the other.
#include <catch2/catch.hpp>
#include <thread>

#include "tests/support/streams.h"

namespace nvr::test {
namespace {

TEST_CASE("with one of two daemons stopped the clients of the other keep streaming", "[once]") {
  const Site stopped_site;
  const Site running_site;
  const RecordingFile stopped_file = stopped_site.record({1, 1}, 100 * kChunkBytes);
  const RecordingFile running_file = running_site.record({1, 1}, 100 * kChunkBytes);
  const DaemonProcess stopped = stopped_site.start();
  const DaemonProcess running = running_site.start();
  Client waiting = connect_to(stopped, {.streams = 2, .slots_per_stream = 2});
  Client flowing = connect_to(running, {.streams = 2, .slots_per_stream = 4});
  Stream before = open_stream(waiting, stopped_file);
  Stream open_before = open_stream(flowing, running_file);
  REQUIRE(before.info().has_value());
  stopped.stop();
  std::string problem = "not run";
  std::thread blocked([&] { problem = problem_reading(before, stopped_file, 0, stopped_file.size); });
  CHECK(problem_reading(open_before, running_file, 0, running_file.size) == "");
  for (int i = 0; i < 5; ++i) {
    Client another = connect_to(running);
    CHECK(problem_reading(another, running_file) == "");
    CHECK(problem_reading(flowing, running_file) == "");
  }
  stopped.go_on();
  blocked.join();
  // Whole; or, where the stop lasted longer than a daemon that is alive can be silent, Unavailable.
  CHECK((problem.empty() || problem.starts_with("Unavailable")));
  Client again = connect_to(stopped);
  CHECK(problem_reading(again, stopped_file) == "");
}

TEST_CASE("a call with a deadline returns from a stopped daemon, and not before its time", "[once]") {
  constexpr std::chrono::milliseconds kTime{20};
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  daemon.stop();
  std::optional<Error> late;
  while (!late) {  // what it had published comes first
    const auto before = Clock::now();
    const auto next = stream.next(in(kTime));
    const auto took = Clock::now() - before;
    REQUIRE(next.has_value());
    if (*next) {
      REQUIRE(checker.accept(**next));
      continue;
    }
    late = next->error();
    CHECK((took >= kTime || late->code == Code::kUnavailable));
    CHECK(took < kLongEnough);
  }
  // Unavailable where this machine took so long that the daemon counts as gone.
  CHECK((late->code == Code::kDeadlineExceeded || late->code == Code::kUnavailable));
  daemon.go_on();
  if (late->code == Code::kUnavailable) return;
  const Outcome outcome = drain(stream, &checker);
  CHECK(outcome.problem == "");
  CHECK((checker.is_complete() || (outcome.error && outcome.error->code == Code::kUnavailable)));
}

TEST_CASE("one client streams from two daemons at once", "[once]") {
  const Site one;
  const Site two;
  const RecordingFile file_one = one.record({1, 1}, 200 * kChunkBytes + 1);
  const RecordingFile file_two = two.record({1, 1}, 200 * kChunkBytes + 2);
  const DaemonProcess daemon_one = one.start();
  const DaemonProcess daemon_two = two.start();
  Client client_one = connect_to(daemon_one);
  Client client_two = connect_to(daemon_two);
  std::string problem_one = "not run";
  std::thread thread([&] { problem_one = problem_reading(client_one, file_one); });
  CHECK(problem_reading(client_two, file_two) == "");
  thread.join();
  CHECK(problem_one == "");
}

}  // namespace
}  // namespace nvr::test
