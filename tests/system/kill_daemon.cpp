// A daemon that is killed: what its clients see, and a client that meets the next one.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "tests/support/asleep.h"
#include "tests/support/client_process.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::size_t kStreams = 16;

// Blocks in next() on 16 streams from 16 threads, over two connections, and tells how that ended.
void block_on_all(const std::string& socket, RecordingId id, const Reporter& reporter) {
  Client one = connect_to(socket, {.streams = kStreams / 2, .slots_per_stream = 2});
  Client two = connect_to(socket, {.streams = kStreams / 2, .slots_per_stream = 2});
  std::vector<Stream> streams;
  for (std::size_t i = 0; i < kStreams; ++i)
    streams.push_back(open_stream(i % 2 == 0 ? one : two, {.recording = id}));
  std::array<std::atomic<pid_t>, kStreams> ids = {};
  std::vector<std::string> outcomes(kStreams);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kStreams; ++i) {
    threads.emplace_back([&, i] {
      ids[i] = gettid();
      const auto next = streams[i].next();
      outcomes[i] = next ? std::string(nvr::to_string(code_of(next))) : "end";
      for (int again = 0; again < 3; ++again) outcomes[i] += streams[i].next() ? " again" : "";
    });
  }
  Reporter::require(wait_until([&] { return std::ranges::all_of(ids, is_asleep_on_futex); }),
                    "not all of them sleep");
  reporter.line("blocked");
  for (std::thread& thread : threads) thread.join();
  for (const std::string& outcome : outcomes) Reporter::require(outcome == "Unavailable", "got: " + outcome);
  reporter.line("done");
}

TEST_CASE("a daemon killed under 16 blocked streams gives each exactly one Unavailable") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  for (const bool in_open : {false, true}) {
    CAPTURE(in_open);
    const Site site;
    SlowDisk disk(site.directory());
    const RecordingFile file = make_recording(disk.backing(), {1, 1}, 100 * kChunkBytes, 1);
    DaemonProcess daemon = site.start();
    if (in_open)
      disk.stall_opens(file.id);
    else
      disk.stall_reads(file.id);
    const std::string socket = daemon.socket();
    ClientProcess client =
        ClientProcess::start([&](const Reporter& reporter) { block_on_all(socket, file.id, reporter); });
    REQUIRE(client.next_line() == "blocked");
    daemon.signal(SIGKILL);
    CHECK(client.next_line() == "done");
    CHECK(client.failure() == "");
    disk.release();
    CHECK(daemon.wait().has_value());
  }
}

TEST_CASE("a daemon killed before it has taken the opens gives each exactly one Unavailable", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  ClientProcess client = ClientProcess::start([&](const Reporter& reporter) {
    Client connection = connect_to(socket, {.streams = kStreams, .slots_per_stream = 2});
    reporter.line("connected");
    while (access((site.root() / "go").c_str(), F_OK) != 0) std::this_thread::yield();
    std::vector<Stream> streams;
    for (std::size_t i = 0; i < kStreams; ++i) streams.push_back(open_stream(connection, file));
    reporter.line("opened");
    for (Stream& stream : streams) {
      Reporter::require(code_of(stream.next()) == Code::kUnavailable, "no Unavailable");
      Reporter::require(!stream.next(), "not ended");
    }
  });
  REQUIRE(client.next_line() == "connected");
  daemon.stop();
  write_file(site.root() / "go", "");
  REQUIRE(client.next_line() == "opened");
  daemon.kill();
  CHECK(client.failure() == "");
}

TEST_CASE("a daemon killed while it streams delivers what it published and then Unavailable", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 400 * kChunkBytes);
  for (int i = 0; i < 10; ++i) {
    CAPTURE(i);
    DaemonProcess daemon = site.start();
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 8});
    Stream stream = open_stream(client, file);
    ChunkChecker checker(file, 0, file.size);
    for (std::uint64_t taken = pick(test_random(), 0, 100); taken > 0; --taken) {
      const auto chunk = stream.next();
      REQUIRE(code_of(chunk) == Code::kOk);
      REQUIRE(checker.accept(**chunk));
    }
    daemon.kill();
    const Outcome outcome = drain(stream, &checker);
    CHECK(outcome.problem == "");
    REQUIRE(outcome.error.has_value());
    CHECK(outcome.error->code == Code::kUnavailable);
    CHECK(outcome.chunks <= 8);
    CHECK_FALSE(stream.next().has_value());
  }
}

TEST_CASE("after a daemon was killed a new one serves at the same path", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  DaemonProcess first = site.start();
  Client old_client = connect_to(first);
  CHECK(problem_reading(old_client, file) == "");
  first.kill();
  const DaemonProcess second = site.start();
  Client new_client = connect_to(second);
  CHECK(problem_reading(new_client, file) == "");
  // The old connection stays dead. It may find out at the open or at the first next.
  for (int i = 0; i < 3; ++i) {
    auto stream = old_client.open({.recording = file.id});
    CHECK((stream ? code_of(stream->next()) : stream.error().code) == Code::kUnavailable);
  }
}

}  // namespace
}  // namespace nvr::test
