// Users who hold chunks: one, half of the window, all of it; with their stream, and with the next one on its
// channel.
#include <algorithm>
#include <catch2/catch.hpp>
#include <thread>

#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint64_t kChunk = kChunkBytes;
constexpr std::uint32_t kWindow = 8;

// Takes `count` chunks and keeps them.
std::vector<Chunk> hold(Stream& stream, ChunkChecker& checker, std::uint32_t count) {
  std::vector<Chunk> held;
  for (std::uint32_t i = 0; i < count; ++i) {
    auto chunk = stream.next();
    REQUIRE(code_of(chunk) == Code::kOk);
    REQUIRE(checker.accept(**chunk));
    held.push_back(std::move(**chunk));
  }
  return held;
}

bool are_intact(const std::vector<Chunk>& held, const RecordingFile& file) {
  return std::ranges::all_of(
      held, [&](const Chunk& chunk) { return file.difference(chunk.offset(), chunk.bytes()).empty(); });
}

TEST_CASE("a stream whose reader holds chunks delivers the rest through the other slots") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 60 * kChunk + 7);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = kWindow});
  for (const std::uint32_t count : {1u, kWindow / 2, kWindow - 1}) {
    CAPTURE(count);
    Stream stream = open_stream(client, file);
    ChunkChecker checker(file, 0, file.size);
    const auto held = hold(stream, checker, count);
    const Outcome rest = drain(stream, &checker);
    CHECK(rest.problem == "");
    CHECK_FALSE(rest.error.has_value());
    CHECK(checker.is_complete());
    CHECK(are_intact(held, file));
  }
}

TEST_CASE("a reader who holds the whole window is told so and goes on when it has dropped one") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 60 * kChunk + 7);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = kWindow});
  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  auto held = hold(stream, checker, kWindow);
  for (int i = 0; i < 3; ++i) {
    CHECK(code_of(stream.next()) == Code::kResourceExhausted);
    CHECK(code_of(stream.try_next()) == Code::kResourceExhausted);
    CHECK(code_of(stream.next(in(std::chrono::hours(1)))) == Code::kResourceExhausted);
  }
  int errors = 0;
  for (auto& chunk : stream) errors += chunk ? 100 : 1;
  CHECK(errors == 1);
  CHECK(are_intact(held, file));
  held.erase(held.begin() + 3);  // any of them
  const Outcome rest = drain(stream, &checker);
  CHECK(rest.problem == "");
  CHECK_FALSE(rest.error.has_value());
  CHECK(checker.is_complete());
  CHECK(are_intact(held, file));
}

TEST_CASE("holding every chunk of a range as long as the window is no error") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kWindow * kChunk);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = kWindow});
  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  const auto held = hold(stream, checker, kWindow);
  // The end needs no slot. It may still be under way, and until it is there the window is the news.
  CHECK(wait_until([&] { return !stream.try_next().has_value(); }));
  CHECK(are_intact(held, file));
}

TEST_CASE("the next stream on a channel lives with the slots that are held of the one before") {
  const Site site;
  const RecordingFile first_file = site.record({1, 1}, 60 * kChunk + 7);
  const RecordingFile second_file = site.record({1, 2}, 60 * kChunk + 9);
  const DaemonProcess daemon = site.start();
  for (const std::uint32_t count : {1u, kWindow / 2, kWindow}) {
    for (const bool to_the_end : {false, true}) {
      CAPTURE(count, to_the_end);
      Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = kWindow});
      std::vector<Chunk> held;
      {
        const std::uint64_t end = to_the_end ? count * kChunk : first_file.size;
        Stream stream = open_stream(client, first_file, 0, end);
        ChunkChecker checker(first_file, 0, end);
        held = hold(stream, checker, count);
      }
      Stream stream = open_stream(client, second_file);
      ChunkChecker checker(second_file, 0, second_file.size);
      if (count == kWindow) {
        CHECK(code_of(stream.next()) == Code::kResourceExhausted);
        CHECK(are_intact(held, first_file));
        held.pop_back();
      }
      const Outcome outcome = drain(stream, &checker);
      CHECK(outcome.problem == "");
      CHECK_FALSE(outcome.error.has_value());
      CHECK(checker.is_complete());
      CHECK(are_intact(held, first_file));
      held.clear();
      CHECK(problem_reading(client, first_file) == "");
    }
  }
}

TEST_CASE("chunks can be dropped in any order and from any thread") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, scaled(600, 200) * kChunk);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 16});
  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  std::vector<Chunk> held;
  for (;;) {
    auto next = stream.next();
    if (!next) break;
    REQUIRE(code_of(next) == Code::kOk);
    REQUIRE(checker.accept(**next));
    held.push_back(std::move(**next));
    if (held.size() < 14) continue;
    REQUIRE(are_intact(held, file));
    std::shuffle(held.begin(), held.end(), test_random());
    const auto half = held.begin() + static_cast<std::ptrdiff_t>(pick(test_random(), 1, 13));
    std::vector<Chunk> for_thread(std::make_move_iterator(half), std::make_move_iterator(held.end()));
    held.erase(half, held.end());
    std::thread dropper([chunks = std::move(for_thread)]() mutable { chunks.clear(); });
    held.clear();
    dropper.join();
  }
  CHECK(checker.is_complete());
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("held chunks of one stream cost the other streams nothing") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunk);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 3, .slots_per_stream = 2});
  Stream holder = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  const auto held = hold(holder, checker, 2);
  CHECK(code_of(holder.next()) == Code::kResourceExhausted);
  for (int i = 0; i < 5; ++i) CHECK(problem_reading(client, file) == "");
  CHECK(are_intact(held, file));
}

}  // namespace
}  // namespace nvr::test
