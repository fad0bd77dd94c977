#include "tests/fuzz/intruder.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>

#include "shm/socket.h"

namespace nvr::test {
namespace {

using shm::Command;
using shm::kSlotBytes;

constexpr std::uint64_t kFiles = 4;  // recordings 1, 2, ... of the world, and one that is missing

template <class Message>
std::span<const std::byte> bytes_of(const Message& message) {
  return std::as_bytes(std::span(&message, 1)).first(message.header.length);
}

const shm::Hello kHello;
const shm::Ready kReady;
const shm::Goodbye kGoodbye;
const shm::StatusRequest kStatus;
const shm::Published kPublished;
const shm::StreamsRequest kStreams;
const shm::StallLogRequest kStallLog;
const shm::MetricsRequest kMetrics;
const shm::DisconnectRequest kDisconnect{.connection = 1};

}  // namespace

Intruder::Maps::Maps(shm::Mapping r_mapping, shm::Mapping w_mapping, shm::Geometry geometry,
                     shm::UniqueFd bell)
    : r_map(std::move(r_mapping)),
      w_map(std::move(w_mapping)),
      r(r_map.data(), geometry),
      w(w_map.data(), geometry),
      doorbell(std::move(bell)),
      commands(w.write_header(), w.commands(), geometry.command_capacity(), shm::kFirstIndex) {
  for (std::uint32_t i = 0; i < geometry.streams; ++i) {
    streams.push_back({.descriptors = {r.publication(i), r.descriptors(i), geometry.descriptor_capacity(),
                                       shm::kFirstIndex},
                       .returns = {w.credit(i), w.returns(i), geometry.slots, shm::kFirstIndex}});
  }
}

std::optional<Intruder> Intruder::connect(const std::string& path) {
  auto socket = shm::connect_socket(path, 0);
  if (!socket) return std::nullopt;
  return Intruder(std::move(*socket));
}

void Intruder::send(std::span<const std::byte> message) const {
  static_cast<void>(!::send(socket_.get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
}

void Intruder::say_hello(Program& program) {
  shm::Hello hello;
  hello.streams = program.upto(4);  // none: a control connection
  hello.slots_per_stream = hello.streams == 0 ? 0 : 2u << program.upto(2);
  if (program.upto(7) == 0) hello.streams = program.take<std::uint32_t>();
  asked_ = {.streams = hello.streams, .slots = hello.slots_per_stream};
  send(bytes_of(hello));
}

void Intruder::say_ready() const {
  send(bytes_of(kReady));
}

void Intruder::say_anything(Program& program) {
  switch (program.upto(5)) {
    case 0:
      return say_hello(program);
    case 1:
      return say_ready();
    case 2:
      return say_with_descriptor(program);
    case 3:
      return shut_down();
    default:
      return say_noise(program);
  }
}

void Intruder::say_noise(Program& program) const {
  const std::array known = {bytes_of(kHello),    bytes_of(kReady),      bytes_of(kGoodbye),
                            bytes_of(kStatus),   bytes_of(kPublished),  bytes_of(kStreams),
                            bytes_of(kStallLog), bytes_of(kDisconnect), bytes_of(kMetrics)};
  const auto model = known[program.upto(known.size() - 1)];
  std::vector<std::byte> message(model.begin(), model.end());
  if (program.upto(3) == 0) message.resize(program.take<std::uint16_t>() % 600);
  for (std::uint32_t changes = program.upto(3); changes > 0 && !message.empty(); --changes)
    message[program.take<std::uint8_t>() % message.size()] = program.take<std::byte>();
  send(message);
}

void Intruder::say_with_descriptor(Program& program) const {
  const shm::UniqueFd passed(eventfd(0, EFD_CLOEXEC));
  const auto message = program.upto(1) == 0 ? bytes_of(kHello) : bytes_of(kReady);
  static_cast<void>(shm::send_message(socket_.get(), message, std::array{passed.get()}));
}

void Intruder::listen() {
  std::array<std::byte, shm::kMaxMessageBytes> buffer;
  auto received = shm::receive_message(socket_.get(), buffer, 3);
  if (!received || received->descriptors.size() != 3 || !asked_.is_valid() || maps_) return;
  auto r = shm::attach_segment(shm::SegmentKind::kRead, received->descriptors[0].get(), asked_.read_bytes());
  auto w =
      shm::attach_segment(shm::SegmentKind::kWrite, received->descriptors[1].get(), asked_.write_bytes());
  if (!r || !w) return;  // the geometry of an earlier HELLO
  maps_ = std::make_unique<Maps>(std::move(*r), std::move(*w), asked_, std::move(received->descriptors[2]));
}

shm::Word& Intruder::any_word(Program& program) const {
  const std::uint32_t stream = program.upto(maps_->w.geometry().streams - 1);
  switch (program.upto(6)) {
    case 0:
      return maps_->w.write_header().command_tail;
    case 1:
      return maps_->w.write_header().want_byte;
    case 2:
      return maps_->w.credit(stream).waiting;
    case 3:
      return maps_->w.credit(stream).return_tail;
    case 4:
      return maps_->w.returns(stream)[program.upto(maps_->w.geometry().slots - 1)];
    default:
      return reinterpret_cast<shm::Word*>(
          maps_->w_map.data())[program.take<std::uint16_t>() % (maps_->w_map.size() / sizeof(shm::Word))];
  }
}

void Intruder::write_word(Program& program) const {
  if (maps_) any_word(program).store(program.take<std::uint32_t>());
}

void Intruder::move_word(Program& program) const {
  if (maps_) any_word(program).fetch_add(static_cast<std::uint32_t>(program.take<std::int8_t>()));
}

Intruder::Maps::Stream& Intruder::any_stream(Program& program, std::uint32_t& index) const {
  index = program.upto(static_cast<std::uint32_t>(maps_->streams.size()) - 1);
  return maps_->streams[index];
}

void Intruder::post(Program& program, bool with_noise) {
  if (!maps_) return;
  std::uint32_t index = 0;
  Maps::Stream& stream = any_stream(program, index);
  if (stream.is_open && !with_noise) return;
  stream.is_open = true;
  Command command = {.opcode = shm::Opcode::kOpen,
                     .stream = index,
                     .generation = ++stream.generation,
                     .recording = 1 + program.upto(kFiles)};
  command.begin = std::uint64_t{program.take<std::uint8_t>()} * 1000;
  command.end = command.begin + 1 + std::uint64_t{program.take<std::uint8_t>()} * (kSlotBytes / 16);
  if (with_noise) {
    auto words = std::bit_cast<std::array<std::uint8_t, sizeof(Command)>>(command);
    for (std::uint32_t changes = 1 + program.upto(2); changes > 0; --changes)
      words[program.upto(sizeof(Command) - 1)] = program.take<std::uint8_t>();
    command = std::bit_cast<Command>(words);
  }
  maps_->commands.put(command);
}

void Intruder::post_close(Program& program) {
  if (!maps_) return;
  std::uint32_t index = 0;
  const Maps::Stream& stream = any_stream(program, index);
  maps_->commands.put({.opcode = shm::Opcode::kClose, .stream = index, .generation = stream.generation});
}

void Intruder::take_and_return(Program& program) {
  if (!maps_) return;
  std::uint32_t index = 0;
  Maps::Stream& stream = any_stream(program, index);
  const std::uint32_t keeps = program.upto(7);
  for (std::uint32_t i = 0; i < 8 && stream.descriptors.look() == shm::DescriptorConsumer::Look::kReady;
       ++i) {
    const shm::Descriptor descriptor = stream.descriptors.take();
    if (shm::is_terminal(descriptor.kind)) stream.is_open = false;
    if (descriptor.kind == shm::DescriptorKind::kChunk && i >= keeps) stream.returns.put(descriptor.slot);
  }
}

void Intruder::return_any(Program& program) {
  if (!maps_) return;
  std::uint32_t index = 0;
  any_stream(program, index).returns.put(program.upto(15));
}

void Intruder::ring() const {
  if (!maps_) return;
  const std::uint64_t one = 1;
  static_cast<void>(!write(maps_->doorbell.get(), &one, sizeof(one)));
}

void Intruder::shut_down() const {
  shutdown(socket_.get(), SHUT_WR);
}

}  // namespace nvr::test
