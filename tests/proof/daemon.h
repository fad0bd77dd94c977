// The daemon's threads in a proof: the disk thread, as daemon/disk_thread.cpp, served_stream.cpp and
// stream_publishing.cpp have it, without files; and the kernel that reads for it.
#pragma once

#include "tests/proof/scenario.h"

namespace nvr::proof {

struct ServedStream {
  enum class State : std::uint32_t { kIdle, kQueued, kReading, kEnding };
  ServedStream(World& world, Wires& wires, std::uint32_t index);

  DescriptorProducer descriptors;
  ReturnConsumer returns;
  Waker reader;
  State state = State::kIdle;
  std::uint32_t generation;
  std::uint32_t free;
  std::uint32_t lent = 0;
  std::uint32_t next = 0;  // chunk to read
  std::uint32_t in_flight_slot = 0;
  std::uint32_t slots_taken = 0;  // from the return ring, ever
  shm::DescriptorKind terminal{};
  bool is_starved = false;
  bool is_in_flight = false;
  bool is_told_finished = false;
};

class Disk {
 public:
  Disk(World& world, Wires& wires);
  bool round();

  [[nodiscard]] const Sleeper& sleeper() const { return sleeper_; }

  // For the verdict at rest.
  std::uint32_t commands_taken = 0;
  std::array<ServedStream, 2> streams;

 private:
  bool take_all();
  void take_command(const shm::Command& command);
  void take_credit(ServedStream& stream);
  bool serve(std::uint32_t index);
  void open(std::uint32_t index);
  void read(std::uint32_t index);
  void on_finished(std::uint32_t index);
  void on_read(std::uint32_t index, std::uint32_t slot);
  void end_with(std::uint32_t index, shm::DescriptorKind terminal);
  void settle(std::uint32_t index);
  void put(ServedStream& stream, shm::DescriptorKind kind, std::uint32_t slot = 0, std::uint32_t chunk = 0);
  void publish(std::uint32_t index);
  void sleep();
  void drain();

  Wires* wires_;
  std::uint32_t step_ = 0;  // of a turn: take, serve each stream, sleep
  bool is_busy_ = false;
  CommandConsumer commands_;
  Sleeper sleeper_;
  Waker event_loop_;
};

struct Engine {
  Wires* wires;
  bool round();
};

}  // namespace nvr::proof
