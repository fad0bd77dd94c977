#include "tests/hostile/raw_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "shm/clock.h"

namespace nvr::test {
namespace {

template <class T>
T or_throw(Result<T> result, const char* what) {
  if (!result) throw TestFailure(std::string(what) + ": " + result.error().message);
  return std::move(*result);
}

shm::Greeting greet_as(int socket, shm::Geometry geometry) {
  return or_throw(shm::greet(socket, geometry.streams, geometry.slots, far_deadline_ns()), "HELLO");
}

shm::Mapping attach(shm::SegmentKind kind, const shm::UniqueFd& fd, std::uint64_t bytes) {
  return or_throw(shm::attach_segment(kind, fd.get(), bytes), "a segment");
}

}  // namespace

std::uint64_t far_deadline_ns() {
  return shm::now_ns() + std::uint64_t{std::chrono::nanoseconds(kLongEnough).count()};
}

shm::UniqueFd connect_raw(const std::string& path) {
  return or_throw(shm::connect_socket(path, far_deadline_ns()), "connect");
}

std::string last_words(int socket) {
  std::string words;
  std::array<std::byte, shm::kMaxMessageBytes> buffer;
  for (;;) {
    if (!shm::wait_readable(socket, far_deadline_ns())) throw TestFailure("the daemon does not close");
    const auto received = shm::receive_message(socket, buffer, 3);
    if (!received || received->size == 0) return words;
    const auto message = std::span(buffer).first(received->size);
    const auto header = shm::check_header(message);
    if (!header || header->type != shm::MessageType::kGoodbye) continue;
    if (const auto goodbye = shm::decode_message<shm::Goodbye>(message))
      words = shm::to_error(*goodbye).message;
  }
}

RawClient::RawClient(const std::string& path, shm::Geometry geometry)
    : socket_(connect_raw(path)),
      greeting_(greet_as(socket_.get(), geometry)),
      r_map_(attach(shm::SegmentKind::kRead, greeting_.descriptors.at(0), greeting_.welcome.read_bytes)),
      w_map_(attach(shm::SegmentKind::kWrite, greeting_.descriptors.at(1), greeting_.welcome.write_bytes)),
      r_(r_map_.data(), geometry),
      w_(w_map_.data(), geometry),
      commands_(w_.write_header(), w_.commands(), geometry.command_capacity(), shm::kFirstIndex) {
  for (std::uint32_t i = 0; i < geometry.streams; ++i) {
    descriptors_.emplace_back(r_.publication(i), r_.descriptors(i), geometry.descriptor_capacity(),
                              shm::kFirstIndex);
    returns_.emplace_back(w_.credit(i), w_.returns(i), geometry.slots, shm::kFirstIndex);
    generations_.push_back(shm::kFirstIndex);
  }
  // Only now: until the indices are there, W looks as if it were full of commands.
  if (!shm::send_message(socket_.get(), shm::Ready{})) throw TestFailure("cannot send READY");
}

void RawClient::post(const shm::Command& command) {
  commands_.put(command);
  ring();
}

void RawClient::ring() const {
  const std::uint64_t one = 1;
  static_cast<void>(!write(doorbell(), &one, sizeof(one)));
}

void RawClient::open(std::uint32_t stream, RecordingId recording, std::uint64_t begin, std::uint64_t end) {
  post({.opcode = shm::Opcode::kOpen,
        .stream = stream,
        .generation = ++generations_.at(stream),
        .recording = recording.composite(),
        .begin = begin,
        .end = end});
}

shm::Descriptor RawClient::take(std::uint32_t stream) {
  auto& descriptors = descriptors_.at(stream);
  using Look = shm::DescriptorConsumer::Look;
  if (!wait_until([&] { return descriptors.look() != Look::kEmpty; }))
    throw TestFailure("no descriptor comes");
  if (descriptors.look() == Look::kCorrupt) throw TestFailure("the daemon's index moved too far");
  return descriptors.take();
}

void RawClient::starve(std::uint32_t stream, RecordingId recording) {
  const std::uint32_t slots = r_.geometry().slots;
  open(stream, recording, 0, std::uint64_t{slots + 1} * shm::kSlotBytes);
  if (take(stream).kind != shm::DescriptorKind::kOpened) throw TestFailure("not opened");
  for (std::uint32_t i = 0; i < slots; ++i) {
    if (take(stream).kind != shm::DescriptorKind::kChunk) throw TestFailure("no chunk");
  }
}

void RawClient::give_back(std::uint32_t stream, std::uint32_t number) {
  returns_.at(stream).put(number);
  ring();
}

bool RawClient::is_served() const {
  pollfd entry = {.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
  return poll(&entry, 1, 0) == 0;
}

}  // namespace nvr::test
