// try_next() and credit: when the daemon is rung for a dropped chunk, and that it is rung when it must be.
#include <poll.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint32_t kWindow = 16;

// How often this process has rung its daemons' doorbells. Nobody ever reads those, so their counters tell.
std::uint64_t rings(const Client& client) {
  std::uint64_t count = 0;
  for (const auto& [fd, target] : descriptors_of(getpid())) {
    if (fd == client.native_handle()) continue;
    constexpr std::string_view kKey = "eventfd-count:";
    const std::string info = read_file("/proc/self/fdinfo/" + std::to_string(fd));
    if (const auto at = info.find(kKey); at != std::string::npos)
      count += std::stoull(info.substr(at + kKey.size()), nullptr, 16);
  }
  return count;
}

// A stream whose window is full, with the daemon waiting for credit.
struct FullWindow {
  Site site;
  RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = kWindow});
  std::optional<Stream> stream;

  // `after_empty_look`: try_next() finds nothing first.
  explicit FullWindow(bool after_empty_look) {
    if (after_empty_look) daemon.stop();
    stream = open_stream(client, file);
    if (after_empty_look) {
      REQUIRE(code_of(stream->try_next()) == Code::kDeadlineExceeded);
      daemon.go_on();
    }
    REQUIRE(daemon.wait_for_total("chunks", kWindow));
  }
};

TEST_CASE("a reader that has found nothing once does not ring for every chunk from then on") {
  FullWindow full(true);
  const std::uint64_t before = rings(full.client);
  for (std::uint32_t i = 0; i < kWindow / 2 - 1; ++i) REQUIRE(code_of(full.stream->try_next()) == Code::kOk);
  CHECK(rings(full.client) == before);
  REQUIRE(code_of(full.stream->try_next()) == Code::kOk);  // half of the window
  CHECK(rings(full.client) <= before + 1);                 // none, where the daemon was awake by itself
  CHECK(wait_until([&] { return full.daemon.total("chunks") == kWindow + kWindow / 2; }));
}

TEST_CASE("credit below half a window is rung for when the reader finds nothing more") {
  FullWindow full(false);
  std::vector<Chunk> held;
  for (std::uint32_t i = 0; i < kWindow; ++i) {
    auto next = full.stream->try_next();
    REQUIRE(code_of(next) == Code::kOk);
    if (i >= 3) held.push_back(std::move(**next));
  }
  // Three slots are free, and the daemon does not know.
  CHECK(wait_until([&] { return code_of(full.stream->try_next()) == Code::kOk; }));
}

TEST_CASE("an event loop that holds the whole window hears of what a dropped chunk brings") {
  FullWindow full(false);
  std::vector<Chunk> held;
  for (std::uint32_t i = 0; i < kWindow; ++i) {
    auto next = full.stream->try_next();
    REQUIRE(code_of(next) == Code::kOk);
    held.push_back(std::move(**next));
  }
  REQUIRE(full.client.dispatch().has_value());
  REQUIRE(code_of(full.stream->try_next()) == Code::kResourceExhausted);
  const bool from_info = GENERATE(false, true);
  if (from_info) REQUIRE(full.stream->info().has_value());
  held.pop_back();
  pollfd entry = {.fd = full.client.native_handle(), .events = POLLIN, .revents = 0};
  CHECK(poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(kLongEnough).count())) == 1);
  CHECK(wait_until([&] { return code_of(full.stream->try_next()) == Code::kOk; }));
}

}  // namespace
}  // namespace nvr::test
