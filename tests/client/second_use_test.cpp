// Second use: a stream takes over channel, place and credit from an earlier stream of its connection, and
// learns that the daemon has gone. A scripted daemon shows every step.
#include <catch2/catch.hpp>
#include <optional>

#include "shm/clock.h"
#include "tests/client/scripted_daemon.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using shm::DescriptorKind;
using shm::Opcode;
using std::chrono::milliseconds;

constexpr ConnectOptions kOne = {.streams = 1, .slots_per_stream = kScriptedSlots};
constexpr OpenRequest kRange = {.recording = {1, 1}, .end = kScriptedSize};
constexpr OpenRequest kFollowing = {.recording = {1, 1}, .follow = milliseconds::max()};

std::vector<Opcode> opcodes(ScriptedDaemon& daemon) {
  std::vector<Opcode> all;
  for (const shm::Command& command : daemon.commands()) all.push_back(command.opcode);
  return all;
}

struct Scene {
  ScriptedDaemon daemon;
  Client client = connect_to(daemon.socket(), kOne);
  std::optional<Stream> stream = open_stream(client, kRange);

  [[nodiscard]] Result<Stream> open() { return client.open(kRange); }
  Chunk take() {
    auto next = stream->try_next();
    REQUIRE(code_of(next) == Code::kOk);
    REQUIRE(next);
    return std::move(**next);
  }
};

// ---- Channels

TEST_CASE("a channel is promised to one stream only, until that has it") {
  Scene scene;
  scene.stream.reset();  // without its terminal
  auto promised = scene.open();
  REQUIRE(promised.has_value());
  CHECK(scene.open().error().code == Code::kResourceExhausted);
  scene.daemon.publish(terminal(DescriptorKind::kClosed));
  CHECK(scene.open().error().code == Code::kResourceExhausted);
  CHECK(code_of(promised->try_next()) == Code::kDeadlineExceeded);
  scene.daemon.publish(opened(), 2);
  scene.daemon.publish(chunk(0, 0), 2);
  CHECK(code_of(promised->try_next()) == Code::kOk);
  CHECK(opcodes(scene.daemon) == std::vector{Opcode::kOpen, Opcode::kClose, Opcode::kOpen});
}

TEST_CASE("a channel that was promised can be used again") {
  Scene scene;
  scene.stream.reset();
  {
    auto promised = scene.open();
    REQUIRE(promised.has_value());
    const bool was_kept = GENERATE(true, false);
    CAPTURE(was_kept);
    if (was_kept) {
      scene.daemon.publish(terminal(DescriptorKind::kClosed));
      REQUIRE(code_of(promised->try_next()) == Code::kDeadlineExceeded);  // it has posted its OPEN
      promised->close();
      REQUIRE_FALSE(promised->try_next().has_value());
      scene.daemon.publish(terminal(DescriptorKind::kClosed), 2);
    } else {  // its stream was given up before
      promised = tl::unexpected(Error{});
      scene.daemon.publish(terminal(DescriptorKind::kClosed));
    }
  }
  CHECK(scene.open().has_value());
}

TEST_CASE("what a stream left behind gives its slots back") {
  Scene scene;
  scene.daemon.publish(opened());
  for (std::uint16_t slot = 0; slot < 3; ++slot) scene.daemon.publish(chunk(slot, slot * kChunkBytes));
  scene.daemon.publish(terminal(DescriptorKind::kEnd));
  scene.stream.reset();
  CHECK(scene.daemon.returned() == std::vector<std::uint32_t>{0, 1, 2});
  CHECK(scene.open().has_value());
}

TEST_CASE("a daemon whose index is corrupt while a channel is drained is found out by the next stream") {
  Scene scene;
  scene.stream.reset();
  auto promised = scene.open();
  REQUIRE(promised.has_value());
  scene.daemon.corrupt_head();
  const auto next = promised->next(in(kLongEnough));
  REQUIRE(code_of(next) == Code::kInternal);
  CHECK_THAT(next->error().message, Catch::Contains("moved too far"));
}

TEST_CASE("a new stream takes a channel of which nothing is held") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 2 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  std::vector<Chunk> held;
  {
    Stream stream = open_stream(client, file);
    while (auto next = stream.next()) {
      REQUIRE(next->has_value());
      held.push_back(std::move(**next));
    }
  }
  REQUIRE(held.size() == 2);
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE(
    "the next stream does not ring for every chunk because the last one polled in vain, but at half a "
    "window") {
  Scene scene;
  REQUIRE(code_of(scene.stream->try_next()) == Code::kDeadlineExceeded);
  scene.stream.reset();
  scene.daemon.publish(terminal(DescriptorKind::kClosed));
  scene.stream.emplace(scene.open().value());
  scene.daemon.publish(opened(), 2);
  for (std::uint16_t slot = 0; slot < 2; ++slot) scene.daemon.publish(chunk(slot, slot * kChunkBytes), 2);
  scene.daemon.announce_sleep();
  scene.take();
  CHECK(scene.daemon.returned().size() == 1);
  CHECK(scene.daemon.rings() == 0);
  scene.take();
  CHECK(scene.daemon.rings() == 1);
}

TEST_CASE("a reader that finds nothing rings for the credit that was not worth a ring before") {
  Scene scene;
  scene.daemon.publish(opened());
  scene.daemon.publish(chunk(0, 0));
  scene.daemon.announce_sleep();
  scene.take();
  CHECK(scene.daemon.rings() == 0);
  SECTION("polling") {
    CHECK(code_of(scene.stream->try_next()) == Code::kDeadlineExceeded);
  }
  SECTION("blocked") {
    CHECK(code_of(scene.stream->next(in(milliseconds(1)))) == Code::kDeadlineExceeded);
  }
  CHECK(scene.daemon.rings() == 1);
}

TEST_CASE("a chunk that is assigned is the other chunk, and the one before is given back") {
  Scene scene;
  scene.daemon.publish(opened());
  for (std::uint16_t i = 0; i < 3; ++i) scene.daemon.publish(chunk(3 - i, i * kChunkBytes));
  {
    Chunk kept = scene.take();
    kept = scene.take();
    CHECK(scene.daemon.returned() == std::vector<std::uint32_t>{3});
    CHECK(kept.offset() == kChunkBytes);
    Chunk& same = kept;
    kept = std::move(same);
    CHECK(kept.bytes().size() == kChunkBytes);
    CHECK(scene.daemon.returned().size() == 1);
  }
  CHECK(scene.daemon.returned() == std::vector<std::uint32_t>{3, 2});
}

// ---- Commands

TEST_CASE(
    "finish() and cancel() post one command each, however often, and the first of close() and cancel() "
    "counts") {
  ScriptedDaemon daemon;
  Client client = connect_to(daemon.socket(), kOne);
  Stream stream = open_stream(client, kFollowing);
  for (int i = 0; i < 20; ++i) stream.finish();
  CHECK(opcodes(daemon) == std::vector{Opcode::kOpen, Opcode::kFinish});
  stream.close();
  for (int i = 0; i < 20; ++i) stream.cancel();
  CHECK(opcodes(daemon) == std::vector{Opcode::kOpen, Opcode::kFinish, Opcode::kClose});
  CHECK_FALSE(stream.next().has_value());
}

TEST_CASE("a stream that was read to its end posts nothing more") {
  Scene scene;
  scene.daemon.publish(opened());
  for (std::uint16_t i = 0; i < 3; ++i) scene.daemon.publish(chunk(i, i * kChunkBytes));
  scene.daemon.publish(terminal(DescriptorKind::kEnd));
  for (int i = 0; i < 3; ++i) scene.take();
  REQUIRE_FALSE(scene.stream->try_next().has_value());
  scene.stream.reset();
  CHECK(opcodes(scene.daemon) == std::vector{Opcode::kOpen});
}

// ---- What a stream says

TEST_CASE("an error that info() found is found by next() as well, once") {
  Scene scene;
  scene.daemon.publish({.kind = DescriptorKind::kError, .code = static_cast<std::uint16_t>(Code::kNotFound)});
  CHECK(scene.stream->info().error().code == Code::kNotFound);
  CHECK(code_of(scene.stream->next()) == Code::kNotFound);
  CHECK_FALSE(scene.stream->next().has_value());
}

TEST_CASE("a follower's chunks may end anywhere, but nowhere twice, and are never empty") {
  ScriptedDaemon daemon;
  Client client = connect_to(daemon.socket(), kOne);
  Stream stream = open_stream(client, kFollowing);
  daemon.publish(opened());
  const bool is_empty = GENERATE(true, false);
  if (is_empty) {
    daemon.publish(chunk(0, 0, 0));
  } else {
    daemon.publish(chunk(0, 0, 1000));
    REQUIRE(code_of(stream.next()) == Code::kOk);
    daemon.publish(chunk(1, 1000));
  }
  CHECK(code_of(stream.next(in(kLongEnough))) == Code::kInternal);
}

TEST_CASE("who holds the whole range waits for its end like everybody else") {
  ScriptedDaemon daemon;
  Client client = connect_to(daemon.socket(), kOne);
  Stream stream = open_stream(client, {.recording = {1, 1}, .end = kScriptedSlots * kChunkBytes});
  daemon.publish(opened(kScriptedSlots * kChunkBytes));
  std::vector<Chunk> held;
  for (std::uint16_t i = 0; i < kScriptedSlots; ++i) {
    daemon.publish(chunk(i, i * kChunkBytes));
    auto next = stream.next();
    REQUIRE(code_of(next) == Code::kOk);
    held.push_back(std::move(**next));
  }
  CHECK(code_of(stream.try_next()) == Code::kDeadlineExceeded);
  daemon.publish(terminal(DescriptorKind::kEnd));
  CHECK_FALSE(stream.next().has_value());
}

TEST_CASE("a deadline in the distant past is one look") {
  Scene scene;
  CHECK(code_of(scene.stream->next(Deadline::min())) == Code::kDeadlineExceeded);
  scene.daemon.publish(opened());
  scene.daemon.publish(chunk(0, 0));
  CHECK(code_of(scene.stream->next(Deadline::min())) == Code::kOk);
}

TEST_CASE("the longest connect timeout is one") {
  const ScriptedDaemon daemon;
  CHECK(Client::connect(daemon.socket(),
                        {.streams = 1, .slots_per_stream = kScriptedSlots, .timeout = milliseconds::max()})
            .has_value());
}

// ---- The daemon's end

TEST_CASE("a death that one caller has noticed is known to all at once") {
  const NoSlices no_slices;
  Scene scene;
  REQUIRE(code_of(scene.stream->try_next()) == Code::kDeadlineExceeded);
  SECTION("the event loop, and then a stream") {
    scene.daemon.say_goodbye("tea time");
    REQUIRE(scene.client.dispatch().error().code == Code::kUnavailable);
    CHECK(code_of(scene.stream->try_next()) == Code::kUnavailable);
  }
  SECTION("a stream, and then an open") {
    REQUIRE(scene.open().error().code == Code::kResourceExhausted);  // looks, perhaps, whether it is alive
    scene.daemon.say_goodbye("tea time");
    REQUIRE(code_of(scene.stream->next(in(milliseconds(20)))) == Code::kUnavailable);
    CHECK(scene.open().error().code == Code::kUnavailable);
  }
}

TEST_CASE("what the daemon said last is found behind other messages") {
  Scene scene;
  REQUIRE(scene.daemon.flood(3) == 3);
  scene.daemon.say_goodbye("tea time");
  const auto next = scene.stream->next(in(kLongEnough));
  REQUIRE(code_of(next) == Code::kUnavailable);
  CHECK_THAT(next->error().message, Catch::Contains("tea time"));
}

TEST_CASE("what was published unseen before the daemon died is delivered") {
  const NoSlices no_slices;
  Scene scene;
  // At each deadline the reader looks whether the daemon is alive; so seldom that it never misses its heart.
  const auto next = [&] {
    Code code = Code::kUnknown;
    do code = code_of(scene.stream->next(in(milliseconds(600))));
    while (code == Code::kDeadlineExceeded);
    return code;
  };
  Code first = Code::kUnknown;
  Code second = Code::kUnknown;
  std::thread reader([&] {
    first = next();
    second = next();
  });
  const bool is_asleep = wait_until([&] { return scene.daemon.is_reader_asleep(); });
  std::this_thread::sleep_for(milliseconds(20));  // so that it is asleep, and not about to be
  scene.daemon.publish_unseen(opened());
  scene.daemon.publish_unseen(chunk(0, 0));
  scene.daemon.say_goodbye("tea time");
  reader.join();
  CHECK(is_asleep);
  CHECK(first == Code::kOk);
  CHECK(second == Code::kUnavailable);
}

TEST_CASE("heartbeat: a daemon is dead when its heart stood still for a second under our eyes") {
  internal::HeartbeatWatch watch;
  std::uint64_t now = 100 * shm::kSecond;
  // Looks every 100 ms, for a second; how often it looked alive.
  const auto looks_alive_for_a_second = [&](std::uint64_t beat) {
    int alive = 0;
    for (int i = 0; i < 10; ++i, now += 100 * shm::kMillisecond)
      alive += watch.looks_alive(beat, now) ? 1 : 0;
    return alive;
  };
  CHECK(looks_alive_for_a_second(5) == 10);
  CHECK(watch.looks_alive(5, now));  // a second since it was first seen
  CHECK_FALSE(watch.looks_alive(5, now + 1));
  CHECK(looks_alive_for_a_second(6) == 10);
  now += 10 * shm::kSecond;  // it was us who stood still
  CHECK(looks_alive_for_a_second(6) == 10);
  CHECK_FALSE(watch.looks_alive(6, now + 1));
}

// ---- Forks

TEST_CASE("a forked child has no map of W that it could write to") {
  Scene scene;
  REQUIRE(scene.daemon.commands().size() == 1);  // and its thread has ended
  const auto writable_maps = [] {
    int count = 0;
    for (const MapEntry& map : mappings_of(getpid()))
      count += map.permissions == "rw-s" && map.name.find("nvr-W") != std::string::npos ? 1 : 0;
    return count;
  };
  REQUIRE(writable_maps() == 1);
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) _exit(writable_maps());
  Process child(pid);
  const auto exit = child.wait();
  REQUIRE(exit.has_value());
  CHECK(to_string(*exit) == "exit 0");
}

}  // namespace
}  // namespace nvr::test
