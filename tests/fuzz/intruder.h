// A hostile client of the world (hostile_client.h): its socket, its maps, and the little that it must
// remember to be able to do some things right. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shm/mapping.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/unique_fd.h"
#include "tests/fuzz/target.h"

namespace nvr::test {

class Intruder {
 public:
  // Connects; nothing where the listener has no room.
  [[nodiscard]] static std::optional<Intruder> connect(const std::string& path);

  // Each does one thing as the program's next bytes say. Without maps, those that need them do nothing.
  void say_hello(Program& program);
  void say_ready() const;
  void say_anything(Program& program);
  void listen();  // takes one message; a WELCOME's segments are mapped
  void write_word(Program& program) const;
  void move_word(Program& program) const;
  void post(Program& program, bool with_noise);  // OPEN; without noise only where it is legal
  void post_close(Program& program);
  void take_and_return(Program& program);
  void return_any(Program& program);
  void ring() const;

 private:
  struct Maps {
    Maps(shm::Mapping r, shm::Mapping w, shm::Geometry geometry, shm::UniqueFd doorbell);
    shm::Mapping r_map;
    shm::Mapping w_map;
    shm::ReadableView r;
    shm::WritableView w;
    shm::UniqueFd doorbell;
    shm::CommandProducer commands;
    struct Stream {
      shm::DescriptorConsumer descriptors;
      shm::ReturnProducer returns;
      std::uint32_t generation = shm::kFirstIndex;
      bool is_open = false;
    };
    std::vector<Stream> streams;
  };

  explicit Intruder(shm::UniqueFd socket) : socket_(std::move(socket)) {}
  void send(std::span<const std::byte> message) const;
  void say_noise(Program& program) const;
  void say_with_descriptor(Program& program) const;
  void shut_down() const;
  [[nodiscard]] shm::Word& any_word(Program& program) const;
  [[nodiscard]] Maps::Stream& any_stream(Program& program, std::uint32_t& index) const;

  shm::UniqueFd socket_;
  shm::Geometry asked_;
  std::unique_ptr<Maps> maps_;
};

}  // namespace nvr::test
