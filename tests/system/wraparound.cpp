// Every free-running index starts sixteen steps before 2^32 and wraps in a connection's first moments: bytes
// must be exact before, across and after. The smallest rings wrap most.
#include <poll.h>

#include <catch2/catch.hpp>

#include "shm/protocol.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint32_t kStepsToWrap = 0u - shm::kFirstIndex;

TEST_CASE("descriptors and returned slots are exact across the wrap") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 3 * kStepsToWrap * kChunkBytes + 11);
  const DaemonProcess daemon = site.start();
  for (const std::uint32_t window : {2u, 4u, 16u, 64u}) {
    CAPTURE(window);
    Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = window});
    Stream stream = open_stream(client, file);
    CHECK(problem_reading(stream, file, 0, file.size) == "");
  }
}

TEST_CASE("commands and generations are exact across the wrap", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 5 * kChunkBytes + 11);
  const DaemonProcess daemon = site.start();
  for (const std::uint32_t streams : {1u, 2u, 5u}) {
    CAPTURE(streams);
    Client client = connect_to(daemon, {.streams = streams, .slots_per_stream = 2});
    for (std::uint32_t i = 0; i < 4 * kStepsToWrap; ++i) {
      CAPTURE(i);
      const std::uint64_t begin = pick(test_random(), 0, file.size - 1);
      switch (i % 4) {
        case 0:  // OPEN, to the end
          CHECK(problem_reading(client, file, begin, file.size) == "");
          break;
        case 1: {  // OPEN, then CLOSE on its heels
          const Stream dropped = open_stream(client, file, begin);
          break;
        }
        case 2: {  // CLOSE in the middle
          Stream stream = open_stream(client, file);
          CHECK(code_of(stream.next()) == Code::kOk);
          break;
        }
        default:  // an error
          Stream missing = open_stream(client, {.recording = {9, 9}});
          CHECK(code_of(missing.next()) == Code::kNotFound);
      }
      const auto info = client.stat(file.id, in(kLongEnough));
      if (info)
        CHECK(info->size == file.size);
      else
        CHECK(info.error().code == Code::kResourceExhausted);  // the only stream is still being closed
    }
    CHECK(problem_reading(client, file) == "");
  }
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("all streams of a connection open and close across the wrap", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 6 * kChunkBytes + 1);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 8, .slots_per_stream = 2});
  for (std::uint32_t round = 0; round < 2 * kStepsToWrap; ++round) {
    CAPTURE(round);
    std::vector<Stream> streams;
    for (int i = 0; i < 8; ++i) streams.push_back(open_stream(client, file, static_cast<std::uint64_t>(i)));
    for (std::size_t i = 0; i < 8; ++i) {
      if (i % 3 == round % 3) continue;  // closed unread
      CHECK(problem_reading(streams[i], file, i, file.size) == "");
    }
  }
  CHECK(daemon.wait_for_total("streams_open", 0));
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("a sleeping reader and an event loop wake each time across many epochs", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, scaled(2000, 400) * kChunkBytes);
  const DaemonProcess daemon = site.start();
  // The smallest window makes both sides sleep most often.
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  CHECK(problem_reading(client, file) == "");

  REQUIRE(client.dispatch().has_value());
  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  int sleeps = 0;
  while (const auto next = stream.try_next()) {
    if (*next) {
      REQUIRE(checker.accept(**next));
      continue;
    }
    REQUIRE(code_of(next) == Code::kDeadlineExceeded);
    pollfd entry = {.fd = client.native_handle(), .events = POLLIN, .revents = 0};
    REQUIRE(poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(kLongEnough).count())) == 1);
    REQUIRE(client.dispatch().has_value());
    ++sleeps;
  }
  CHECK(checker.is_complete());
  CHECK(sleeps > 0);
  CHECK(daemon.total("violations") == 0);
}

}  // namespace
}  // namespace nvr::test
