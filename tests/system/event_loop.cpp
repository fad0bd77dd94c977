// Clients without a thread per stream: native_handle(), dispatch() and try_next() under epoll.
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr int kWaitMs = static_cast<int>(std::chrono::milliseconds(kLongEnough).count());

// An epoll set with one client in it.
class Loop {
 public:
  explicit Loop(const Client& client) : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    epoll_event event = {};
    event.events = EPOLLIN;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, client.native_handle(), &event) != 0)
      throw TestFailure("cannot watch a client");
  }
  // False when nothing came.
  [[nodiscard]] bool wait(int timeout_ms = kWaitMs) const {
    epoll_event event = {};
    return epoll_wait(epoll_.get(), &event, 1, timeout_ms) == 1;
  }

 private:
  shm::UniqueFd epoll_;
};

struct Reading {
  Stream stream;
  ChunkChecker checker;
  bool has_ended = false;
  std::optional<Error> error = {};

  // Takes what is there.
  void take() {
    while (!has_ended) {
      auto next = stream.try_next();
      if (!next) {
        has_ended = true;
      } else if (*next) {
        REQUIRE(checker.accept(**next));
      } else if (next->error().code == Code::kDeadlineExceeded) {
        return;
      } else {
        error = next->error();
        has_ended = true;
      }
    }
  }
};

TEST_CASE("an event loop reads many streams through one descriptor", "[once]") {
  const Site site;
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < 16; ++i) files.push_back(site.record({1, i}, (20 + 5 * i) * kChunkBytes + i));
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 16, .slots_per_stream = 4});
  const Loop loop(client);
  for (int turn = 0; turn < 3; ++turn) {
    std::vector<Reading> readings;
    REQUIRE(client.dispatch().has_value());
    for (const RecordingFile& file : files)
      readings.push_back({.stream = open_stream(client, file), .checker = ChunkChecker(file, 0, file.size)});
    std::size_t left = readings.size();
    while (left > 0) {
      for (Reading& reading : readings) {
        if (reading.has_ended) continue;
        reading.take();
        if (reading.has_ended) --left;
      }
      if (left == 0) break;
      REQUIRE(loop.wait());
      REQUIRE(client.dispatch().has_value());
    }
    for (const Reading& reading : readings) {
      CHECK_FALSE(reading.error.has_value());
      CHECK(reading.checker.is_complete());
    }
  }
}

TEST_CASE("the descriptor is quiet when there is no news", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 2 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  const Loop loop(client);
  REQUIRE(client.dispatch().has_value());
  CHECK_FALSE(loop.wait(50));
  Reading reading{.stream = open_stream(client, file), .checker = ChunkChecker(file, 0, file.size)};
  while (!reading.has_ended) {
    REQUIRE(loop.wait());
    REQUIRE(client.dispatch().has_value());
    reading.take();
  }
  CHECK(reading.checker.is_complete());
  while (loop.wait(50))
    REQUIRE(client.dispatch().has_value());  // what came between the last look and the end
  CHECK_FALSE(loop.wait(50));
}

TEST_CASE("an event loop sees a killed daemon at once and each stream ends with one Unavailable", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 500 * kChunkBytes);
  DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
  const Loop loop(client);
  REQUIRE(client.dispatch().has_value());
  std::vector<Reading> readings;
  for (int i = 0; i < 4; ++i)
    readings.push_back({.stream = open_stream(client, file), .checker = ChunkChecker(file, 0, file.size)});
  readings.front().take();  // the others stay unread, so that they are in the middle when the daemon goes
  REQUIRE(wait_until([&] { return daemon.total("chunks") >= 4 * 4; }));
  daemon.kill();
  for (;;) {
    REQUIRE(loop.wait());
    const auto dispatched = client.dispatch();
    if (dispatched) continue;
    CHECK(dispatched.error().code == Code::kUnavailable);
    break;
  }
  for (Reading& reading : readings) {
    reading.take();
    CHECK_FALSE(reading.stream.try_next().has_value());
    if (&reading == &readings.front() && reading.checker.is_complete()) continue;
    REQUIRE(reading.error.has_value());
    CHECK(reading.error->code == Code::kUnavailable);
  }
}

TEST_CASE("event loop and blocking calls can be mixed on one client", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes + 3);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  const Loop loop(client);
  REQUIRE(client.dispatch().has_value());
  Reading reading{.stream = open_stream(client, file), .checker = ChunkChecker(file, 0, file.size)};
  while (!reading.has_ended) {
    CHECK(problem_reading(client, file, 0, 3 * kChunkBytes) == "");
    REQUIRE(loop.wait());
    REQUIRE(client.dispatch().has_value());
    reading.take();
  }
  CHECK_FALSE(reading.error.has_value());
  CHECK(reading.checker.is_complete());
}

}  // namespace
}  // namespace nvr::test
