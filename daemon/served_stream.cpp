#include "daemon/served_stream.h"

#include <errno.h>

#include <algorithm>
#include <bit>
#include <cassert>

#include "daemon/connection.h"
#include "nvr/error.h"
#include "shm/clock.h"
#include "shm/futex.h"

namespace nvr::daemon {
namespace {

using shm::Descriptor;
using shm::DescriptorKind;
using shm::Detail;
using shm::kSlotBytes;

// One on the disk and one queued; a stream that is stuck takes no more of the engine than that.
constexpr std::uint32_t kMaxOperationsInFlight = 2;
// A stream's first read is short, so that its first chunk is soon there; the next are as many times longer.
constexpr std::uint32_t kRampFactor = 4;

constexpr std::uint64_t bit(std::uint32_t slot) {
  return std::uint64_t{1} << slot;
}
constexpr std::uint64_t all_of(std::uint32_t slots) {
  return slots == 64 ? ~std::uint64_t{0} : bit(slots) - 1;
}

Descriptor error_descriptor(Code code, Detail detail, int sys_errno, std::uint64_t offset,
                            std::uint64_t file_size) {
  return {.kind = DescriptorKind::kError,
          .code = static_cast<std::uint16_t>(code),
          .detail = detail,
          .sys_errno = sys_errno,
          .offset = offset,
          .file_size = file_size};
}

Descriptor open_error(int sys_errno, CachePolicy cache) {
  if (cache == CachePolicy::kDirect && (sys_errno == EINVAL || sys_errno == EOPNOTSUPP))
    return error_descriptor(Code::kUnimplemented, Detail::kNotSupported, sys_errno, 0, 0);
  const bool not_regular = sys_errno == ELOOP || sys_errno == EISDIR || sys_errno == ENXIO;
  return error_descriptor(code_from_errno(sys_errno), not_regular ? Detail::kNotRegular : Detail::kOpenFailed,
                          sys_errno, 0, 0);
}

// The bytes that slot `i` of a read takes.
std::uint32_t slot_length(const Operation& operation, std::uint32_t i) {
  return std::min(kSlotBytes, operation.length - i * kSlotBytes);
}

}  // namespace

ServedStream::ServedStream(Connection& connection, std::uint32_t index)
    : connection_(&connection),
      index_(index),
      descriptors_(connection.read_view().publication(index), connection.read_view().descriptors(index),
                   connection.geometry().descriptor_capacity(), shm::kFirstIndex),
      returns_(connection.write_view().credit(index), connection.write_view().returns(index),
               connection.geometry().slots, shm::kFirstIndex),
      reader_(connection.write_view().credit(index).waiting),
      free_(all_of(connection.geometry().slots)),
      generation_(shm::kFirstIndex) {}

std::optional<const char*> ServedStream::open(const shm::Command& command, std::uint64_t now_ns) {
  if (state_ != State::kIdle) return "OPEN of a stream whose last generation has not ended";
  if (command.generation != generation_ + 1) return "OPEN with a generation out of order";
  generation_ = command.generation;
  command_ = command;
  opened_ns_ = now_ns;
  state_ = State::kQueued;
  first_published_ = false;
  connection_->stream_opened();
  if (command.begin > INT64_MAX || command.end > INT64_MAX) {
    end_with(error_descriptor(Code::kOutOfRange, Detail::kRangeBeyondEnd, EOVERFLOW, 0, 0));
  } else if (command.cache == CachePolicy::kDirect && !context_->engine.reads_direct()) {
    end_with(error_descriptor(Code::kUnimplemented, Detail::kNotSupported, 0, 0, 0));
  } else {
    context_->scheduler.enqueue(*this, Scheduler::Place::kOpen);
  }
  return std::nullopt;
}

std::optional<const char*> ServedStream::close(std::uint32_t generation) {
  if (generation != generation_) return "CLOSE of a generation that is not the last one";
  if (state_ != State::kIdle && state_ != State::kEnding) end_with({.kind = DescriptorKind::kClosed});
  return std::nullopt;
}

void ServedStream::abandon() {
  if (state_ != State::kIdle && state_ != State::kEnding) end_with({.kind = DescriptorKind::kClosed});
}

bool ServedStream::take_credit() {
  const std::uint32_t window = connection_->geometry().slots;
  return returns_.take([&](std::uint32_t slot) {
    if (slot >= window || (lent_ & bit(slot)) == 0) return false;
    lent_ &= ~bit(slot);
    free_ |= bit(slot);
    return true;
  });
}

void ServedStream::reschedule() {
  if (state_ != State::kReading || next_ >= file_->end || in_flight_ >= allowed_in_flight()) return;
  context_->scheduler.enqueue(*this, free_ != 0 ? Scheduler::Place::kRead : Scheduler::Place::kStarved);
}

// The first read alone: two that start at the same time can come to the disk in the wrong order, and then the
// kernel does not see that they are sequential.
std::uint32_t ServedStream::allowed_in_flight() const {
  return first_published_ ? kMaxOperationsInFlight : 1;
}

void ServedStream::prepare(Operation& operation, std::uint64_t now_ns) {
  operation.stream = this;
  operation.recording = RecordingId::from_composite(command_.recording);
  ++in_flight_;
  if (state_ == State::kQueued) {
    operation.kind = Operation::Kind::kOpen;
    operation.cache = command_.cache;
    operation.offset = 0;
    state_ = State::kOpening;
    context_->statistics.queue_wait.record_ns(now_ns - opened_ns_);
    return;
  }
  assert(state_ == State::kReading && free_ != 0 && next_ < file_->end);
  const std::uint64_t left = file_->end - next_;
  const auto slots = static_cast<std::uint32_t>(std::min<std::uint64_t>(
      {static_cast<std::uint64_t>(std::popcount(free_)), ramp_, (left + kSlotBytes - 1) / kSlotBytes}));
  ramp_ = std::min(kRampFactor * ramp_, context_->engine.read_slots());
  operation.kind = Operation::Kind::kRead;
  operation.file = file_.get();
  operation.offset = next_;
  operation.length =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(left, std::uint64_t{slots} * kSlotBytes));
  operation.slot_count = slots;
  for (std::uint32_t i = 0; i < slots; ++i) {
    // The lowest free slot: memory that was used a moment ago is in the cache.
    const auto slot = static_cast<std::uint32_t>(std::countr_zero(free_));
    free_ &= ~bit(slot);
    operation.slots[i] = static_cast<std::uint16_t>(slot);
    operation.targets[i] = connection_->read_view().slot(index_, slot);
  }
  next_ += operation.length;
  reads_.push_back(operation);
}

void ServedStream::on_progress(Operation& operation) {
  if (state_ != State::kReading || &operation != &reads_.front()) return;
  const std::uint32_t before = operation.published;
  publish_complete_slots(operation);
  if (operation.published != before) publish();
}

void ServedStream::on_finished(Operation& operation) {
  --in_flight_;
  operation.finished = true;
  if (operation.quarantined)
    context_->statistics.quarantined_bytes.subtract(std::uint64_t{operation.slot_count} * kSlotBytes);
  if (operation.kind == Operation::Kind::kOpen) {
    if (state_ == State::kOpening) on_opened(operation);
    if (operation.opened) context_->engine.close(std::move(operation.opened));  // nobody wants it any more
    context_->operations.give_back(operation);
  } else if (state_ == State::kReading) {
    publish_in_order();
  } else {  // closed meanwhile: what was read is nobody's
    release_slots(operation);
    reads_.erase(reads_.iterator_to(operation));
    context_->operations.give_back(operation);
  }
  publish_terminal_if_settled();
}

void ServedStream::on_opened(Operation& operation) {
  if (operation.error != 0) return end_with(open_error(operation.error, command_.cache));
  file_ = std::move(operation.opened);
  file_->window = {connection_->read_view().slot(index_, 0),
                   std::size_t{connection_->geometry().slots} * kSlotBytes};
  const bool to_end = (command_.flags & shm::kOpenToEnd) != 0;
  file_->begin = command_.begin;
  file_->end = to_end ? file_->size : command_.end;
  if (file_->begin > file_->end || file_->end > file_->size)
    return end_with(error_descriptor(Code::kOutOfRange, Detail::kRangeBeyondEnd, 0, 0, file_->size));
  put({.kind = DescriptorKind::kOpened,
       .file_device = file_->device,
       .file_inode = file_->inode,
       .file_size = file_->size,
       .file_mtime_ns = file_->mtime_ns});
  if ((command_.flags & shm::kOpenStatOnly) != 0 || file_->begin == file_->end)
    return end_with({.kind = DescriptorKind::kEnd});
  state_ = State::kReading;
  next_ = file_->begin;
  ramp_ = 1;
  if (free_ == 0)
    return publish();  // no chunk can follow: that every slot is still held is the reader's news
  // Nobody is woken for this: the first chunk follows, or an error, and either wakes. Who looks sees it.
  descriptors_.publish();
}

// Publishes, as far as they are there, the finished reads at the head of the order, and ends the stream at
// its end or at the first error.
void ServedStream::publish_in_order() {
  bool published = false;
  while (!reads_.empty()) {
    Operation& operation = reads_.front();
    const std::uint32_t before = operation.published;
    publish_complete_slots(operation);
    published |= operation.published != before;
    if (!operation.finished) break;
    const bool complete = operation.done == operation.length;
    const std::uint64_t offset = operation.offset + operation.done;
    const int error = operation.error;
    release_slots(operation);
    reads_.pop_front();
    context_->operations.give_back(operation);
    if (!complete) {
      if (published) publish();
      end_with(error != 0 ? error_descriptor(error == EIO ? Code::kDataLoss : code_from_errno(error),
                                             Detail::kReadFailed, error, offset, file_->size)
                          : error_descriptor(Code::kDataLoss, Detail::kTruncated, 0, offset, offset));
      return;
    }
  }
  if (reads_.empty() && next_ >= file_->end) return end_with({.kind = DescriptorKind::kEnd});
  if (published) publish();
}

void ServedStream::publish_complete_slots(Operation& operation) {
  while (operation.published < operation.slot_count) {
    const std::uint32_t i = operation.published;
    const std::uint32_t length = slot_length(operation, i);
    if (operation.done < i * kSlotBytes + length) break;
    lent_ |= bit(operation.slots[i]);
    put({.kind = DescriptorKind::kChunk,
         .slot = operation.slots[i],
         .length = length,
         .offset = operation.offset + std::uint64_t{i} * kSlotBytes});
    ++operation.published;
    context_->statistics.chunks.add();
    context_->statistics.bytes.add(length);
    connection_->chunks.add();
    connection_->bytes.add(length);
  }
}

// The slots of a finished read that were not published are free again.
void ServedStream::release_slots(Operation& operation) {
  for (std::uint32_t i = operation.published; i < operation.slot_count; ++i) free_ |= bit(operation.slots[i]);
}

void ServedStream::put(const Descriptor& content) {
  Descriptor descriptor = content;
  descriptor.generation = generation_;
  descriptors_.put(descriptor);
  if (descriptor.kind == DescriptorKind::kChunk && !first_published_) {
    first_published_ = true;
    context_->statistics.first_chunk.record_ns(shm::now_ns() - opened_ns_);
  }
}

// Shows the client what was put, and wakes it where it sleeps. W1 to W3 of shm/wake.h, for both its ways to
// sleep.
void ServedStream::publish() {
  descriptors_.publish();
  if (reader_.should_ring()) {
    if (!shm::futex_wake_one(descriptors_.futex_word())) reader_.take_back();
    context_->statistics.wakes.add();
  }
  if (connection_->wake_event_loop()) context_->statistics.wakes.add();
}

void ServedStream::end_with(const Descriptor& terminal) {
  Scheduler::remove(*this);
  terminal_ = terminal;
  state_ = State::kEnding;
  // Reads that were finished out of order and will not be published.
  for (auto it = reads_.begin(); it != reads_.end();) {
    Operation& operation = *it++;
    if (!operation.finished) {
      operation.quarantined = true;
      context_->statistics.quarantined_bytes.add(std::uint64_t{operation.slot_count} * kSlotBytes);
      continue;
    }
    release_slots(operation);
    reads_.erase(reads_.iterator_to(operation));
    context_->operations.give_back(operation);
  }
  publish_terminal_if_settled();
}

void ServedStream::publish_terminal_if_settled() {
  if (state_ != State::kEnding || in_flight_ > 0) return;
  state_ = State::kIdle;
  connection_->stream_ended();
  if (terminal_.kind == DescriptorKind::kError) context_->statistics.errors.add();
  if (!connection_->is_condemned()) {
    put(terminal_);
    publish();
  }
  if (file_) context_->engine.close(std::move(file_));  // after the client has what it waits for
}

}  // namespace nvr::daemon
