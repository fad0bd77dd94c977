// What the client makes of a daemon that breaks the protocol: the stream's bytes are exact, or it ends in an
// error.
#include <catch2/catch.hpp>

#include "tests/client/scripted_daemon.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using shm::Descriptor;
using shm::DescriptorKind;

constexpr std::uint64_t kSize = 3 * kChunkBytes;

Descriptor opened() {
  return {.kind = DescriptorKind::kOpened, .file_inode = 1, .file_size = kSize};
}
Descriptor chunk(std::uint16_t slot, std::uint64_t offset, std::uint32_t length = kChunkBytes) {
  return {.kind = DescriptorKind::kChunk, .slot = slot, .length = length, .offset = offset};
}

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

}  // namespace
}  // namespace nvr::test
