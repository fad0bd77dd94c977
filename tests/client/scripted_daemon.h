// A daemon that says what a test tells it to: one connection with one stream, served by the real handshake
// and the real memory, without a disk. For what nvr-readerd never does. Test thread and one thread of its
// own.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace nvr::test {

inline constexpr std::uint32_t kScriptedSlots = 4;

// What it says in place of a true WELCOME. The descriptors are the caller's; -1: the real one.
struct Welcoming {
  std::function<void(shm::Welcome&)> edit = [](shm::Welcome&) {};
  int r = -1;
  int w = -1;
  int doorbell = -1;
  std::size_t descriptors = 3;
};

class ScriptedDaemon {
 public:
  // Listens; accepts one client and greets it, on its own thread.
  explicit ScriptedDaemon(Welcoming welcoming = {});
  ~ScriptedDaemon();
  ScriptedDaemon(const ScriptedDaemon&) = delete;
  ScriptedDaemon& operator=(const ScriptedDaemon&) = delete;

  [[nodiscard]] std::string socket() const { return root_ / "socket"; }
  // The rest: after the client has connected.

  // Publishes one descriptor, filled in with the generation of the first OPEN, unless the test has set one.
  void publish(const shm::Descriptor& content);
  // As with --fail-fast, when the disk does not answer.
  void refuse_opens();
  // Moves the head as no daemon should.
  void corrupt_head();
  void say_goodbye(const std::string& text,
                   std::uint32_t code = static_cast<std::uint32_t>(Code::kUnavailable));
  // Sends PUBLISHED again and again, as long as the client's socket has room. How many went.
  int flood();

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
  shm::UniqueFd socket_;
  std::thread thread_;
};

}  // namespace nvr::test
