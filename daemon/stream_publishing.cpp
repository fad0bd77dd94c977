// What a stream's client gets: chunks in file order, as the operations that fill them make progress, in
// whatever order those end.
#include <errno.h>

#include <algorithm>
#include <utility>

#include "daemon/connection.h"
#include "daemon/error_descriptor.h"
#include "daemon/served_stream.h"
#include "daemon/slot_mask.h"
#include "nvr/error.h"
#include "shm/clock.h"
#include "shm/futex.h"
#include "shm/step.h"

namespace nvr::daemon {
namespace {

using shm::Descriptor;
using shm::DescriptorKind;
using shm::Detail;
using shm::kSlotBytes;

// The bytes that slot `i` of a read takes.
std::uint32_t slot_length(const Operation& operation, std::uint32_t i) {
  return std::min(kSlotBytes, operation.length - i * kSlotBytes);
}

}  // namespace

void ServedStream::on_copied(Operation& operation, std::uint32_t done) {
  if (state_ != State::kReading || &operation != &reads_.front()) return;
  put_complete_slots(operation, done);
  descriptors_.publish();
}

void ServedStream::on_progress(Operation& operation) {
  if (state_ != State::kReading || &operation != &reads_.front()) return;
  put_complete_slots(operation, operation.done);
  if (must_publish_) publish();
}

void ServedStream::on_finished(Operation& operation) {
  --in_flight_;
  if (operation.kind == Operation::Kind::kPrefetch) {
    ahead_.on_finished(operation, context_->operations);
    return publish_terminal_if_settled();
  }
  operation.finished = true;
  if (operation.kind == Operation::Kind::kRead) --reading_;
  if (operation.quarantined)
    context_->statistics.quarantined_bytes.subtract(std::uint64_t{operation.slot_count} * kSlotBytes);
  if (operation.kind == Operation::Kind::kOpen) {
    if (state_ == State::kOpening) on_opened(operation);
    if (operation.opened) context_->engine.close(std::move(operation.opened));  // nobody wants it any more
    context_->operations.give_back(operation);
  } else if (state_ == State::kReading) {
    if (operation.only_memory && operation.error == EAGAIN) on_missing(operation);
    publish_in_order();
  } else {  // closed meanwhile: what was read is nobody's
    release_slots(operation, operation.published);
    reads_.erase(reads_.iterator_to(operation));
    context_->operations.give_back(operation);
  }
  publish_terminal_if_settled();
}

// Publishes, as far as they are there, the finished reads at the head of the order, and ends the stream at
// its end or at the first error.
void ServedStream::publish_in_order() {
  while (!reads_.empty()) {
    Operation& operation = reads_.front();
    put_complete_slots(operation, operation.done);
    if (!operation.finished) break;
    const bool complete = operation.done == operation.length;
    const std::uint64_t offset = operation.offset + operation.done;
    const int error = operation.error;
    release_slots(operation, operation.published);
    reads_.pop_front();
    context_->operations.give_back(operation);
    if (!complete) {
      if (must_publish_) publish();
      end_with(error != 0 ? error_descriptor(code_of_file_error(error), Detail::kReadFailed, error, offset,
                                             file_->size)
                          : error_descriptor(Code::kDataLoss, Detail::kTruncated, 0, offset, offset));
      return;
    }
  }
  if (reads_.empty() && next_ >= file_->end) {
    if (!growth_.goes_on()) return end_with({.kind = DescriptorKind::kEnd});
    context_->growth.add(*this, shm::now_ns(), is_told_finished_);
  }
  if (must_publish_) publish();
}

// Those that are complete with the first `done` bytes of the read.
void ServedStream::put_complete_slots(Operation& operation, std::uint32_t done) {
  while (operation.published < operation.slot_count) {
    const std::uint32_t i = operation.published;
    const std::uint32_t length = slot_length(operation, i);
    if (done < i * kSlotBytes + length) break;
    lent_ |= bit(operation.slots[i]);
    context_->statistics.slots_lent.add();
    put({.kind = DescriptorKind::kChunk,
         .slot = operation.slots[i],
         .length = length,
         .offset = operation.offset + std::uint64_t{i} * kSlotBytes});
    ++operation.published;
    must_publish_ = true;
    context_->statistics.chunks.add();
    context_->statistics.bytes.add(length);
    connection_->chunks.add();
    connection_->bytes.add(length);
  }
}

// The slots of a finished read from the `first` on are free again.
void ServedStream::release_slots(Operation& operation, std::uint32_t first) {
  for (std::uint32_t i = first; i < operation.slot_count; ++i) free_ |= bit(operation.slots[i]);
}

void ServedStream::put(const Descriptor& content) {
  Descriptor descriptor = content;
  descriptor.generation = generation_;
  descriptors_.put(descriptor);
  if (descriptor.kind == DescriptorKind::kOpened) {
    opened_ = true;
    count_open(Code::kOk);
  }
  if (descriptor.kind == DescriptorKind::kChunk && !first_published_) {
    first_published_ = true;
    context_->statistics.first_chunk.record_ns(shm::now_ns() - opened_ns_);
  }
}

// Shows the client what was put, and wakes it where it sleeps. W1 to W3 of shm/wake.h, for both its ways to
// sleep.
void ServedStream::publish() {
  NVR_STEP("daemon.about_to_publish");
  descriptors_.publish();
  must_publish_ = false;
  NVR_STEP("daemon.published");
  if (reader_.ring_if_asleep([this] { return shm::futex_wake_one(descriptors_.futex_word()); }))
    context_->statistics.wakes.add();
  NVR_STEP("daemon.woke");
  if (connection_->wake_event_loop()) context_->statistics.wakes.add();
}

}  // namespace nvr::daemon
