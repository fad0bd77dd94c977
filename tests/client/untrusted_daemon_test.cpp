// What the client makes of a daemon that breaks the protocol: the stream's bytes are exact, or it ends in an
// error.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>
#include <vector>

#include "tests/client/scripted_daemon.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using shm::Descriptor;
using shm::DescriptorKind;

constexpr std::uint64_t kSize = kScriptedSize;

// A client and a stream of [0, kSize) at a daemon of one's own.
struct Scene {
  ScriptedDaemon daemon;
  Client client = connect_to(daemon.socket(), {.streams = 1, .slots_per_stream = kScriptedSlots});
  Stream stream = open_stream(client, {.recording = {1, 1}, .end = kSize});

  // The stream ends here, with an error that says so, once.
  void must_end_with(Code code, const std::string& text) {
    const auto next = stream.next(in(kLongEnough));
    REQUIRE(code_of(next) == code);
    CHECK_THAT(next->error().message, Catch::Contains(text));
    CHECK_FALSE(stream.next().has_value());
  }
};

TEST_CASE("a daemon that keeps to the protocol is believed") {
  Scene scene;
  scene.daemon.publish(opened());
  for (std::uint16_t i = 0; i < 3; ++i) scene.daemon.publish(chunk(i, i * kChunkBytes));
  scene.daemon.publish({.kind = DescriptorKind::kEnd});
  std::uint64_t offset = 0;
  for (auto& next : scene.stream) {
    REQUIRE(next.has_value());
    CHECK(next->offset() == offset);
    offset += next->bytes().size();
  }
  CHECK(offset == kSize);
}

TEST_CASE("a chunk that is not the next one ends the stream") {
  const Descriptor wrong =
      GENERATE(chunk(0, kChunkBytes), chunk(0, 1), chunk(kScriptedSlots, 0), chunk(65535, 0), chunk(0, 0, 0),
               chunk(0, 0, kChunkBytes - 1), chunk(0, 0, kChunkBytes + 1), chunk(0, 0, UINT32_MAX));
  CAPTURE(wrong.slot, wrong.offset, wrong.length);
  Scene scene;
  scene.daemon.publish(opened());
  scene.daemon.publish(wrong);
  scene.must_end_with(Code::kInternal, "not the next one");
}

TEST_CASE("a chunk beyond the range ends the stream") {
  Scene scene;
  scene.daemon.publish(opened());
  for (std::uint16_t i = 0; i < 3; ++i) {
    scene.daemon.publish(chunk(i, i * kChunkBytes));
    REQUIRE(code_of(scene.stream.next()) == Code::kOk);
  }
  scene.daemon.publish(chunk(3, kSize));
  scene.must_end_with(Code::kInternal, "not the next one");
}

TEST_CASE("descriptors out of order or of another generation end the stream") {
  SECTION("a chunk before OPENED") {
    Scene scene;
    scene.daemon.publish(chunk(0, 0));
    scene.must_end_with(Code::kInternal, "out of order");
  }
  SECTION("OPENED twice") {
    Scene scene;
    scene.daemon.publish(opened());
    scene.daemon.publish(opened());
    scene.must_end_with(Code::kInternal, "out of order");
  }
  SECTION("a kind that does not exist") {
    Scene scene;
    scene.daemon.publish({.kind = static_cast<DescriptorKind>(99)});
    scene.must_end_with(Code::kInternal, "out of order");
  }
  SECTION("another generation") {
    Scene scene;
    Descriptor stale = opened();
    stale.generation = shm::kFirstIndex + 7;
    scene.daemon.publish(stale);
    scene.must_end_with(Code::kInternal, "generation");
  }
  SECTION("a head that moved further than the ring is long") {
    Scene scene;
    scene.daemon.publish(opened());
    REQUIRE(scene.stream.info().has_value());
    scene.daemon.corrupt_head();
    scene.must_end_with(Code::kInternal, "moved too far");
  }
}

TEST_CASE("a stream without its last bytes does not look complete") {
  const auto kind = GENERATE(DescriptorKind::kEnd, DescriptorKind::kClosed);
  const bool with_chunk = GENERATE(false, true);
  Scene scene;
  scene.daemon.publish(opened());
  if (with_chunk) {
    scene.daemon.publish(chunk(0, 0));
    REQUIRE(code_of(scene.stream.next()) == Code::kOk);
  }
  scene.daemon.publish({.kind = kind});
  scene.must_end_with(Code::kInternal, kind == DescriptorKind::kEnd ? "before its end" : "unasked");
}

TEST_CASE("what the daemon said last is in the error, after the chunks that came before") {
  Scene scene;
  scene.daemon.publish(opened());
  scene.daemon.publish(chunk(0, 0));
  scene.daemon.say_goodbye("tea time");
  REQUIRE(code_of(scene.stream.next()) == Code::kOk);
  scene.must_end_with(Code::kUnavailable, "tea time");
}

TEST_CASE("a daemon without a heartbeat is given up by who waits for it, and by nobody else") {
  Scene scene;  // its heart never beats
  scene.daemon.publish(opened());
  scene.daemon.publish(chunk(0, 0));
  // Opening asks nothing of the heart.
  for (int i = 0; i < 8; ++i) {
    CHECK(scene.client.open({.recording = {1, 2}}).error().code == Code::kResourceExhausted);
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
  REQUIRE(code_of(scene.stream.next()) == Code::kOk);
  SECTION("blocked") {
    scene.must_end_with(Code::kUnavailable, "no sign of life");
  }
  SECTION("polling") {
    Code code = Code::kDeadlineExceeded;
    CHECK(wait_until([&] { return (code = code_of(scene.stream.try_next())) != Code::kDeadlineExceeded; }));
    CHECK(code == Code::kUnavailable);
    CHECK_FALSE(scene.stream.try_next().has_value());
  }
  CHECK(scene.client.open({.recording = {1, 2}}).error().code == Code::kUnavailable);
}

TEST_CASE("a file that does not hold the range ends the stream") {
  ScriptedDaemon daemon;
  Client client = connect_to(daemon.socket(), {.streams = 1, .slots_per_stream = kScriptedSlots});
  const bool to_end = GENERATE(false, true);
  Stream stream =
      open_stream(client, {.recording = {1, 1}, .begin = kSize, .end = to_end ? kToEnd : kSize + 1});
  Descriptor shorter = opened();
  shorter.file_size = to_end ? kSize - 1 : kSize;
  daemon.publish(shorter);
  const auto next = stream.next(in(kLongEnough));
  REQUIRE(code_of(next) == Code::kInternal);
  CHECK_THAT(next->error().message, Catch::Contains("does not hold the range"));
  CHECK_FALSE(stream.next().has_value());
}

TEST_CASE("an error with a code that cannot be one is Unknown, and ends the stream all the same") {
  // 4: DeadlineExceeded, after which callers would go on.
  const auto code = GENERATE(as<std::uint16_t>(), 0, 4, 16, 65535);
  Scene scene;
  scene.daemon.publish({.kind = DescriptorKind::kError, .code = code});
  scene.must_end_with(Code::kUnknown, "");
}

// What a WELCOME may say, against what the client asked for: the client maps nothing else.
TEST_CASE("a WELCOME that does not fit is refused") {
  const auto edit = GENERATE(
      as<std::function<void(shm::Welcome&)>>(), [](shm::Welcome& w) { w.streams = 2; },
      [](shm::Welcome& w) { w.streams = 0; }, [](shm::Welcome& w) { w.slots_per_stream = shm::kMaxSlots; },
      [](shm::Welcome& w) { w.slots_per_stream = 3; }, [](shm::Welcome& w) { w.read_bytes += 4096; },
      [](shm::Welcome& w) { w.read_bytes = 0; }, [](shm::Welcome& w) { w.write_bytes = UINT64_MAX; },
      [](shm::Welcome& w) { w.version_major = 2; }, [](shm::Welcome& w) { w.features = 1; },
      [](shm::Welcome& w) { w.reserved = 1; });
  const ScriptedDaemon daemon({.edit = edit});
  const auto client = Client::connect(
      daemon.socket(), {.streams = 1, .slots_per_stream = kScriptedSlots, .timeout = kLongEnough});
  REQUIRE_FALSE(client.has_value());
  CHECK(client.error().code == Code::kFailedPrecondition);
}

TEST_CASE("a directory's name without an end is cut") {
  ScriptedDaemon daemon(
      {.edit = [](shm::Welcome& w) { std::fill(std::begin(w.directory), std::end(w.directory), 'x'); }});
  Client client = connect_to(daemon.socket(), {.streams = 1, .slots_per_stream = kScriptedSlots});
  Stream stream = open_stream(client, {.recording = {1, 1}});
  daemon.publish({.kind = DescriptorKind::kError, .code = 5, .detail = shm::Detail::kOpenFailed});
  const auto next = stream.next(in(kLongEnough));
  REQUIRE(code_of(next) == Code::kNotFound);
  const std::string most(sizeof(shm::Welcome::directory) - 1, 'x');
  CHECK_THAT(next->error().message, Catch::Contains(most) && !Catch::Contains(most + 'x'));
}

TEST_CASE("memory or a doorbell that is something else is refused") {
  const shm::Geometry geometry{.streams = 1, .slots = kScriptedSlots};
  const shm::UniqueFd unsealed(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const shm::UniqueFd small(memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(ftruncate(unsealed.get(), static_cast<off_t>(geometry.read_bytes())) == 0);
  REQUIRE(ftruncate(small.get(), 4096) == 0);
  REQUIRE(fcntl(small.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) ==
          0);
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
  const shm::UniqueFd read_end(ends[0]);
  const shm::UniqueFd write_end(ends[1]);
  const shm::UniqueFd blocking(eventfd(0, EFD_CLOEXEC));
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  const shm::UniqueFd socket_end(ends[0]);
  const shm::UniqueFd other_end(ends[1]);
  struct Lie {
    const char* what;
    std::function<void(Welcoming&)> tell;
  };
  const std::vector<Lie> lies = {
      {"R is too small", [&](Welcoming& w) { w.r = small.get(); }},
      {"R has no seals", [&](Welcoming& w) { w.r = unsealed.get(); }},
      {"R is no memory at all", [&](Welcoming& w) { w.r = read_end.get(); }},
      {"W is too small", [&](Welcoming& w) { w.w = small.get(); }},
      {"W has no seals", [&](Welcoming& w) { w.w = unsealed.get(); }},
      {"the doorbell is a pipe", [&](Welcoming& w) { w.doorbell = write_end.get(); }},
      {"the doorbell is a socket", [&](Welcoming& w) { w.doorbell = socket_end.get(); }},
      {"the doorbell would block", [&](Welcoming& w) { w.doorbell = blocking.get(); }},
      {"the doorbell is missing", [&](Welcoming& w) { w.descriptors = 2; }},
  };
  for (const Lie& lie : lies) {
    CAPTURE(lie.what);
    Welcoming welcoming;
    lie.tell(welcoming);
    const ScriptedDaemon daemon(welcoming);
    const auto client = Client::connect(
        daemon.socket(), {.streams = 1, .slots_per_stream = kScriptedSlots, .timeout = kLongEnough});
    REQUIRE_FALSE(client.has_value());
    const Code code = client.error().code;
    CHECK((code == Code::kFailedPrecondition || code == Code::kInvalidArgument));
  }
}

TEST_CASE("a daemon that publishes without end keeps no caller busy") {
  SECTION("messages") {
    Scene scene;
    REQUIRE(scene.daemon.flood() > 100);
    REQUIRE(scene.client.dispatch().has_value());  // returns, with more to come
    CHECK(code_of(scene.stream.try_next()) == Code::kDeadlineExceeded);
  }
  SECTION("descriptors, to a stream that was left") {
    Scene scene;
    std::optional<Stream> left(std::move(scene.stream));
    std::atomic<bool> is_over = false;
    std::thread publisher([&] {
      scene.daemon.publish(opened());
      while (!is_over) scene.daemon.publish(chunk(0, 0));
    });
    for (int i = 0; i < 50; ++i) {
      left.reset();  // the first time it leaves; then each open looks what is there
      auto again = scene.client.open({.recording = {1, 2}});
      CHECK((again || again.error().code == Code::kResourceExhausted));
      if (again) left.emplace(std::move(*again));
    }
    is_over = true;
    publisher.join();
  }
}

TEST_CASE("a GOODBYE with any code is Unavailable") {
  for (const std::uint32_t code : {0u, 4u, 9u, UINT32_MAX}) {
    Scene scene;
    scene.daemon.publish(opened());
    scene.daemon.say_goodbye("and thanks", code);
    scene.must_end_with(Code::kUnavailable, "and thanks");
  }
}

TEST_CASE("that a daemon refused opens is no reason any more once it has gone") {
  std::optional<ScriptedDaemon> daemon(std::in_place);
  auto client = Client::connect(daemon->socket(), {.streams = 1,
                                                   .slots_per_stream = kScriptedSlots,
                                                   .timeout = kLongEnough,
                                                   .resume = std::chrono::hours(1)});
  REQUIRE(client.has_value());
  daemon->show_disk({}, true);
  const auto refused = client->open({.recording = {1, 1}});
  REQUIRE_FALSE(refused.has_value());
  CHECK_THAT(refused.error().message, Catch::Contains("--fail-fast"));
  daemon.reset();
  auto stream = client->open({.recording = {1, 1}});  // waits for the next one
  if (!stream) FAIL(stream.error().message);
  const auto next = stream->try_next();
  REQUIRE(code_of(next) == Code::kDeadlineExceeded);
  CHECK_THAT(next->error().message, Catch::Contains("away"));
}

}  // namespace
}  // namespace nvr::test
