// A daemon that says what a test tells it to: one connection with one stream, served by the real handshake
// and the real memory, without a disk. For what nvr-readerd never does. Test thread and one thread of its
// own.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/src/connection.h"
#include "shm/clock.h"
#include "shm/disk_state.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/unique_fd.h"
#include "shm/wake.h"
#include "tests/support/temp_dir.h"

namespace nvr::test {

inline constexpr std::uint32_t kScriptedSlots = 4;

// The descriptors that it publishes, all of one recording.
inline constexpr std::uint64_t kScriptedSize = 3 * shm::kSlotBytes;
[[nodiscard]] inline shm::Descriptor opened(std::uint64_t size = kScriptedSize) {
  return {.kind = shm::DescriptorKind::kOpened, .file_device = 1, .file_inode = 1, .file_size = size};
}
[[nodiscard]] inline shm::Descriptor chunk(std::uint16_t slot, std::uint64_t offset,
                                           std::uint32_t length = shm::kSlotBytes) {
  return {.kind = shm::DescriptorKind::kChunk, .slot = slot, .length = length, .offset = offset};
}
[[nodiscard]] inline shm::Descriptor terminal(shm::DescriptorKind kind) {
  return {.kind = kind};
}

// What it says in place of a true WELCOME. The descriptors are the caller's; -1: the real one.
struct Welcoming {
  std::function<void(shm::Welcome&)> edit = [](shm::Welcome&) {};
  int r = -1;
  int w = -1;
  int doorbell = -1;
  std::size_t descriptors = 3;
  std::string socket = {};  // empty: one of its own
};

// As long as it lives, nobody asks whether the daemon is alive just because time has passed.
struct NoSlices {
  std::uint64_t before = internal::wait_slice_ns.exchange(3600 * shm::kSecond);
  NoSlices() = default;
  NoSlices(const NoSlices&) = delete;
  NoSlices& operator=(const NoSlices&) = delete;
  ~NoSlices() { internal::wait_slice_ns = before; }
};

class ScriptedDaemon {
 public:
  // Listens; accepts one client and greets it, on its own thread.
  explicit ScriptedDaemon(Welcoming welcoming = {});
  ~ScriptedDaemon();
  ScriptedDaemon(const ScriptedDaemon&) = delete;
  ScriptedDaemon& operator=(const ScriptedDaemon&) = delete;

  [[nodiscard]] const std::string& socket() const { return welcoming_.socket; }
  // The rest: after the client has connected.

  // Publishes one descriptor, filled in with the generation of the `nth` OPEN, unless the test has set one.
  void publish(const shm::Descriptor& content, std::uint32_t nth = 1);
  // The same, and a reader that sleeps goes on sleeping.
  void publish_unseen(const shm::Descriptor& content);
  // `refuses_opens`: as with --fail-fast, when the disk does not answer.
  void show_disk(const shm::OldestOperation& oldest, bool refuses_opens);
  void beat();
  // Wants to be rung for what comes now, and how often it was since.
  void announce_sleep();
  [[nodiscard]] std::uint64_t rings();
  // All that the client has posted and given back so far.
  [[nodiscard]] const std::vector<shm::Command>& commands();
  [[nodiscard]] const std::vector<std::uint32_t>& returned();
  [[nodiscard]] bool is_reader_asleep();
  // Moves the head as no daemon should.
  void corrupt_head();
  void say_goodbye(const std::string& text,
                   std::uint32_t code = static_cast<std::uint32_t>(Code::kUnavailable));
  // Sends PUBLISHED again and again, as long as the client's socket has room. How many went.
  int flood(int most = 10'000);

 private:
  void greet_one();
  void wait_for_client();

  Welcoming welcoming_;
  TempDir root_;
  shm::UniqueFd listener_;
  shm::Geometry geometry_{.streams = 1, .slots = kScriptedSlots};
  shm::OwnedSegment r_;
  shm::OwnedSegment w_;
  shm::UniqueFd doorbell_;
  std::optional<shm::DescriptorProducer> descriptors_;
  std::optional<shm::CommandConsumer> command_ring_;
  std::optional<shm::ReturnConsumer> return_ring_;
  std::optional<shm::Sleeper> sleeper_;
  std::vector<shm::Command> commands_;
  std::vector<std::uint32_t> returned_;
  shm::UniqueFd socket_;
  std::thread thread_;
};

}  // namespace nvr::test
