// A client without the library: the handshake by hand, both segments mapped, and nothing that stops its owner
// from writing whatever it likes. It never waits longer than kLongEnough; what does not come is a
// TestFailure. One thread, any process.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "nvr/recording.h"
#include "shm/mapping.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/socket.h"
#include "tests/support/wait.h"

namespace nvr::test {

[[nodiscard]] std::uint64_t far_deadline_ns();
// Connects the socket and says nothing.
[[nodiscard]] shm::UniqueFd connect_raw(const std::string& path);
// What the daemon says before it closes: GOODBYE's text, or "" if it closes without a word.
[[nodiscard]] std::string last_words(int socket);

class RawClient {
 public:
  explicit RawClient(const std::string& path, shm::Geometry geometry = {.streams = 4, .slots = 4});

  [[nodiscard]] int socket() const { return socket_.get(); }
  [[nodiscard]] int r_fd() const { return greeting_.descriptors.at(0).get(); }
  [[nodiscard]] int w_fd() const { return greeting_.descriptors.at(1).get(); }
  [[nodiscard]] int doorbell() const { return greeting_.descriptors.at(2).get(); }
  [[nodiscard]] const shm::ReadableView& r() const { return r_; }
  [[nodiscard]] const shm::WritableView& w() const { return w_; }
  [[nodiscard]] std::span<std::byte> all_of_w() const { return {w_map_.data(), w_map_.size()}; }
  [[nodiscard]] std::span<const std::byte> all_of_r() const { return {r_map_.data(), r_map_.size()}; }

  // Posts a command as it is, and rings.
  void post(const shm::Command& command);
  void ring() const;
  // OPEN of the stream's next generation.
  void open(std::uint32_t stream, RecordingId recording, std::uint64_t begin, std::uint64_t end);
  [[nodiscard]] std::uint32_t generation(std::uint32_t stream) const { return generations_.at(stream); }
  // The stream's next descriptor.
  [[nodiscard]] shm::Descriptor take(std::uint32_t stream);
  // Takes OPENED and then a whole window of chunks, and keeps them: the stream has starved.
  void starve(std::uint32_t stream, RecordingId recording);
  // Returns any number through a stream's return ring, and rings.
  void give_back(std::uint32_t stream, std::uint32_t number);

  [[nodiscard]] std::string last_words() const { return test::last_words(socket_.get()); }
  [[nodiscard]] bool is_served() const;  // the daemon has not closed

 private:
  shm::UniqueFd socket_;
  shm::Greeting greeting_;
  shm::Mapping r_map_;
  shm::Mapping w_map_;
  shm::ReadableView r_;
  shm::WritableView w_;
  shm::CommandProducer commands_;
  std::vector<shm::DescriptorConsumer> descriptors_;
  std::vector<shm::ReturnProducer> returns_;
  std::vector<std::uint32_t> generations_;
};

}  // namespace nvr::test
