#include "tests/simulation/simulated_client.h"

#include <errno.h>

#include <algorithm>

#include "tests/support/environment.h"

namespace nvr::test {
namespace {

using shm::Command;
using shm::Descriptor;
using shm::DescriptorKind;
using shm::kSlotBytes;
using shm::Opcode;

shm::Mapping map_as_client(const shm::OwnedSegment& segment, shm::SegmentKind kind) {
  const auto fd = segment.descriptor_for_client();
  if (!fd) throw TestFailure(fd.error().message);
  auto mapping = shm::attach_segment(kind, fd->get(), segment.bytes());
  if (!mapping) throw TestFailure(mapping.error().message);
  return std::move(*mapping);
}

}  // namespace

SimulatedClient::Stream::Stream(const shm::ReadableView& r, const shm::WritableView& w, std::uint32_t index)
    : descriptors(r.publication(index), r.descriptors(index), r.geometry().descriptor_capacity(),
                  shm::kFirstIndex),
      returns(w.credit(index), w.returns(index), w.geometry().slots, shm::kFirstIndex) {}

SimulatedClient::SimulatedClient(Random& random, daemon::Connection& connection,
                                 std::map<std::uint64_t, SimulatedFile>& files, Habits habits)
    : random_(random),
      files_(files),
      habits_(habits),
      r_map_(map_as_client(connection.read_segment(), shm::SegmentKind::kRead)),
      w_map_(map_as_client(connection.write_segment(), shm::SegmentKind::kWrite)),
      r_(r_map_.data(), connection.geometry()),
      w_(w_map_.data(), connection.geometry()),
      commands_(w_.write_header(), w_.commands(), connection.geometry().command_capacity(),
                shm::kFirstIndex) {
  for (std::uint32_t i = 0; i < connection.geometry().streams; ++i)
    streams_.push_back(std::make_unique<Stream>(r_, w_, i));
}

void SimulatedClient::step() {
  const auto index = static_cast<std::uint32_t>(upto(random_, streams_.size() - 1));
  Stream& stream = *streams_[index];
  const bool is_ready = stream.descriptors.look() == shm::DescriptorConsumer::Look::kReady;
  if (is_ready && (finishing_ || happens(random_, habits_.take))) take_one(stream, index);
  if (!stream.held.empty() && (finishing_ || happens(random_, habits_.give_back)))
    give_back(stream, index, upto(random_, stream.held.size() - 1));
  if (stream.is_open && !stream.close_posted && !finishing_ && happens(random_, habits_.close)) close(index);
  if (!stream.is_open && !finishing_ && happens(random_, habits_.open)) open_any(stream, index);
}

bool SimulatedClient::is_idle() const {
  return std::ranges::all_of(streams_,
                             [](const auto& stream) { return !stream->is_open && stream->held.empty(); });
}

void SimulatedClient::open_any(Stream& stream, std::uint32_t index) {
  auto file = files_.begin();
  std::advance(file, upto(random_, files_.size() - 1));
  Command command = {.opcode = Opcode::kOpen, .stream = index, .recording = file->first};
  command.begin = upto(random_, file->second.size - 1);
  if (happens(random_, 0.3)) command.begin = command.begin / kSlotBytes * kSlotBytes;
  command.end = command.begin + 1 +
                upto(random_, std::min<std::uint64_t>(file->second.size - command.begin - 1,
                                                      habits_.longest_chunks * kSlotBytes));
  if (happens(random_, habits_.drop)) command.cache = CachePolicy::kDrop;
  if (happens(random_, habits_.odd_open)) {
    switch (upto(random_, 3)) {
      case 0:
        command.recording = 0xdead;
        break;
      case 1:
        command.end = file->second.size + 1 + upto(random_, 100);
        break;
      case 2:
        command.flags = shm::kOpenToEnd, command.end = 0;
        break;
      default:
        command.flags = shm::kOpenStatOnly;
        break;
    }
  }
  post_open(stream, command);
}

void SimulatedClient::open_range(std::uint32_t stream, std::uint64_t recording, std::uint64_t begin,
                                 std::uint64_t end) {
  open({.opcode = Opcode::kOpen, .stream = stream, .recording = recording, .begin = begin, .end = end});
}

void SimulatedClient::open(const Command& command) {
  post_open(*streams_[command.stream], command);
}

void SimulatedClient::post_open(Stream& stream, const Command& command) {
  stream.command = command;
  stream.command.generation = ++stream.generation;
  stream.is_open = true;
  stream.close_posted = stream.is_opened = false;
  stream.next = command.begin;
  stream.end = command.end;
  stream.delivered = 0;
  stream.terminal.reset();
  commands_.put(stream.command);
}

void SimulatedClient::close(std::uint32_t index) {
  Stream& stream = *streams_[index];
  stream.close_posted = true;
  commands_.put({.opcode = Opcode::kClose, .stream = index, .generation = stream.generation});
}

void SimulatedClient::finish(std::uint32_t index) {
  commands_.put({.opcode = Opcode::kFinish, .stream = index, .generation = streams_[index]->generation});
}

void SimulatedClient::take_all(std::uint32_t index) {
  Stream& stream = *streams_[index];
  while (stream.descriptors.look() == shm::DescriptorConsumer::Look::kReady) take_one(stream, index);
}

void SimulatedClient::give_back_all(std::uint32_t index) {
  Stream& stream = *streams_[index];
  while (!stream.held.empty()) give_back(stream, index, upto(random_, stream.held.size() - 1));
}

void SimulatedClient::take_one(Stream& stream, std::uint32_t index) {
  const Descriptor descriptor = stream.descriptors.take();
  if (!stream.is_open) return object("a descriptor after the terminal");
  if (descriptor.generation != stream.generation) return object("a descriptor of another generation");
  if (descriptor.kind == DescriptorKind::kOpened) return take_opened(stream, descriptor);
  if (descriptor.kind == DescriptorKind::kChunk) return take_chunk(stream, index, descriptor);
  take_terminal(stream, descriptor);
}

void SimulatedClient::take_opened(Stream& stream, const Descriptor& descriptor) {
  if (stream.is_opened) return object("OPENED twice");
  stream.is_opened = true;
  if ((stream.command.flags & shm::kOpenToEnd) != 0) stream.end = descriptor.file_size;
  if (descriptor.file_inode != stream.command.recording) object("OPENED of another file");
}

void SimulatedClient::take_chunk(Stream& stream, std::uint32_t index, const Descriptor& descriptor) {
  ++chunks_;
  if (!stream.is_opened) return object("a chunk before OPENED");
  if ((stream.command.flags & shm::kOpenStatOnly) != 0) return object("a chunk for who asked for the size");
  if (descriptor.slot >= r_.geometry().slots) return object("a slot beyond the window");
  if (std::ranges::find(stream.held, descriptor.slot, &HeldChunk::slot) != stream.held.end())
    return object("a held slot again");
  if (descriptor.offset != stream.next) return object("a chunk out of order");
  const bool grows = (stream.command.flags & shm::kOpenFollow) != 0;
  if (descriptor.length != std::min<std::uint64_t>(kSlotBytes, stream.end - stream.next) && !grows)
    return object("a chunk of the wrong length");
  const std::span bytes(r_.slot(index, descriptor.slot), descriptor.length);
  if (!is_stamped(stream.command.recording, descriptor.offset, bytes)) return object("wrong bytes");
  stream.next += descriptor.length;
  stream.delivered += descriptor.length;
  stream.held.push_back({.slot = descriptor.slot,
                         .recording = stream.command.recording,
                         .offset = descriptor.offset,
                         .length = descriptor.length});
}

// At most one, and only with a reason.
void SimulatedClient::take_terminal(Stream& stream, const Descriptor& descriptor) {
  ++terminals_;
  stream.is_open = false;
  stream.terminal = descriptor;
  const bool grows = (stream.command.flags & shm::kOpenFollow) != 0;
  const bool wants_bytes = (stream.command.flags & shm::kOpenStatOnly) == 0;
  const auto file = files_.find(stream.command.recording);
  switch (descriptor.kind) {
    case DescriptorKind::kEnd:
      if (!stream.is_opened || (wants_bytes && stream.next != stream.end && !grows))
        object("END before the end");
      return;
    case DescriptorKind::kClosed:
      if (!stream.close_posted) object("CLOSED that nobody asked for");
      return;
    case DescriptorKind::kError:
      if (descriptor.detail == shm::Detail::kReadFailed &&
          (file == files_.end() || descriptor.offset != std::max(file->second.bad_at, stream.command.begin) ||
           descriptor.sys_errno != file->second.error ||
           descriptor.code != static_cast<std::uint16_t>(Code::kDataLoss)))
        object("a read failed where the disk is good, or with another error");
      if (descriptor.detail == shm::Detail::kReadFailed && stream.next + kSlotBytes <= descriptor.offset)
        object("whole chunks before an error were not delivered");
      if (descriptor.detail == shm::Detail::kTruncated &&
          (file == files_.end() || descriptor.offset < stream.next || descriptor.offset < file->second.size))
        object("cut off where the file goes on");
      return;
    default:
      return object("a descriptor of no known kind");
  }
}

void SimulatedClient::give_back(Stream& stream, std::uint32_t index, std::size_t which) {
  const HeldChunk& chunk = stream.held[which];
  if (!is_stamped(chunk.recording, chunk.offset, {r_.slot(index, chunk.slot), chunk.length}))
    object("a chunk changed while it was held");
  stream.returns.put(chunk.slot);
  stream.held.erase(stream.held.begin() + static_cast<std::ptrdiff_t>(which));
}

void SimulatedClient::object(std::string what) {
  if (problem_.empty()) problem_ = std::move(what);
}

}  // namespace nvr::test
