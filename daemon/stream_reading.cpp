// What a stream asks of the disk, and when: its open, its reads, what is brought in ahead of them, and looks
// at a file that grows.
#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "daemon/connection.h"
#include "daemon/error_descriptor.h"
#include "daemon/place_on_disk.h"
#include "daemon/served_stream.h"
#include "daemon/slot_mask.h"
#include "nvr/error.h"

namespace nvr::daemon {
namespace {

using shm::DescriptorKind;
using shm::Detail;
using shm::kSlotBytes;

// One on the disk and one queued; a stream that is stuck takes no more of the engine than that.
constexpr std::uint32_t kMaxOperationsInFlight = 2;
// A stream's first read is short, so that its first chunk is soon there; the next are as many times longer.
constexpr std::uint32_t kRampFactor = 4;
// The same for what is brought in ahead: the way there costs ten times what these bytes do.
constexpr std::uint64_t kFirstPrefetchBytes = 128 << 10;

}  // namespace

void ServedStream::reschedule(std::uint64_t now_ns) {
  account_waiting();
  show(now_ns);
  if (state_ != State::kReading || next_ >= file_->end) return;
  set_hot(file_->map != nullptr);
  const bool could_read = can_read();
  const bool is_full = free_ == 0 && (could_read || !reads_ahead());
  ahead_.set_reader_waits(is_full, now_ns);
  if ((is_full || could_read) && reading_ < allowed_in_flight()) {
    const auto first = context_->plan != nullptr ? Scheduler::Place::kBegun : Scheduler::Place::kNew;
    const auto place = is_full                 ? Scheduler::Place::kStarved
                       : next_ == file_->begin ? first
                                               : Scheduler::Place::kRead;
    context_->scheduler.enqueue(*this, place, now_ns);
  } else if (free_ == 0 && !is_queued()) {
    // What comes next is being brought in. Who empties its window meanwhile begins to wait for it.
    context_->scheduler.enqueue(*this, Scheduler::Place::kStarved, now_ns);
  }
  if (context_->plan != nullptr) wish_for_visit(now_ns);
}

// On a spinning disk; without it, and past the page cache, reads go to the disk themselves.
bool ServedStream::reads_ahead() const {
  return context_->plan != nullptr && command_.cache == CachePolicy::kNormal && file_->has_pages;
}

// Would the stream's next read be served, other than by a visit?
bool ServedStream::can_read() const {
  if (context_->plan == nullptr) return true;
  if (!reads_ahead()) return next_ == file_->begin;
  if (!ahead_.is_needed() || ahead_.has_failed()) return true;
  return ahead_.until() >= std::min(next_ + kSlotBytes, file_->end);
}

// The first read alone: two that start at the same time can come to the disk in the wrong order, and then the
// kernel does not see that they are sequential. What is in memory is read at once, one after the other.
std::uint32_t ServedStream::allowed_in_flight() const {
  return first_published_ && !reads_ahead() ? kMaxOperationsInFlight : 1;
}

// Puts down that the stream wants to be visited, if it does: it has little left that has been brought in, or
// room for more where reads go to the disk themselves.
void ServedStream::wish_for_visit(std::uint64_t now_ns) {
  VisitPlan& plan = *context_->plan;
  if (wants_visit()) return;
  if (reads_ahead()) {
    if (!ahead_.is_needed() || !ahead_.has_more() || bytes_ahead() >= plan.low_water_bytes()) return;
    if (!first_published_ && plan.new_streams_first) {
      // Its first segment steps in between two of others; the rest once that has come.
      if (next_ == file_->begin && bytes_ahead() == 0)
        context_->scheduler.enqueue(*this, Scheduler::Place::kBegun, now_ns);
      return;
    }
  } else if (free_ == 0 || next_ == file_->begin || reading_ >= allowed_in_flight()) {
    return;
  }
  const std::uint64_t position = reads_ahead() ? ahead_.asked_until() : next_;
  const std::uint64_t in_hand = bytes_ahead() + static_cast<std::uint64_t>(std::popcount(lent_)) * kSlotBytes;
  std::uint64_t deadline_ns = ahead_.deadline_ns(next_, in_hand, now_ns);
  const bool is_shown = command_.priority == Priority::kLive || command_.priority == Priority::kPlayback;
  if (deadline_ns == UINT64_MAX && is_shown) deadline_ns = ahead_.presumed_deadline_ns(next_);
  plan.visits.want(*this, {.priority = command_.priority,
                           .position = place_on_disk(*file_, command_.recording, position),
                           .deadline_ns = deadline_ns,
                           .bytes = std::min(plan.visit_bytes(), visit_ramp_)});
  visit_ramp_ = std::min(kRampFactor * visit_ramp_, kMaxVisitBytes);
}

std::uint64_t ServedStream::bytes_ahead() const {
  return reads_ahead() && ahead_.asked_until() > next_ ? ahead_.asked_until() - next_ : 0;
}

void ServedStream::account_ahead() {
  if (context_->plan == nullptr) return;
  const std::uint64_t now = state_ == State::kReading ? bytes_ahead() : 0;
  context_->plan->ahead_bytes += now - std::exchange(accounted_ahead_, now);
}

void ServedStream::assign(Operation& operation) {
  ++in_flight_;
  operation.stream = this;
  operation.recording = RecordingId::from_composite(command_.recording);
  operation.priority = command_.priority;
  operation.file = file_.get();
}

void ServedStream::prepare(Operation& operation, std::uint64_t now_ns) {
  assign(operation);
  if (state_ == State::kQueued) {
    operation.kind = Operation::Kind::kOpen;
    operation.cache = command_.cache;
    operation.offset = 0;
    state_ = State::kOpening;
    context_->statistics.queue_wait.record_ns(now_ns - opened_ns_);
  } else if (!can_read()) {
    ahead_.prepare(operation, kFirstPrefetchBytes);
  } else {
    prepare_read(operation, context_->engine.read_slots());
  }
  account_ahead();
}

bool ServedStream::prepare_segment(Operation& operation) {
  const bool has_something = reads_ahead() ? ahead_.has_more() : free_ != 0 && next_ < file_->end;
  if (!has_something) {
    Visits::remove(*this);
    return false;
  }
  assign(operation);
  if (reads_ahead()) {
    ahead_.prepare(operation, std::min(kSegmentBytes, Visits::bytes_left(*this)));
    Visits::advance(*this, operation.length, ahead_.has_more());
  } else {
    prepare_read(operation, static_cast<std::uint32_t>(kSegmentBytes / kSlotBytes));
    Visits::advance(*this, operation.length, free_ != 0 && next_ < file_->end);
  }
  account_ahead();
  return true;
}

void ServedStream::prepare_read(Operation& operation, std::uint32_t most_slots) {
  assert(state_ == State::kReading && free_ != 0 && next_ < file_->end);
  const bool is_brought_in = reads_ahead() && ahead_.is_needed() && !ahead_.has_failed();
  const std::uint64_t end = is_brought_in ? ahead_.until() : file_->end;
  // Whole slots, but for the file's last.
  const std::uint64_t there =
      end == file_->end ? (end - next_ + kSlotBytes - 1) / kSlotBytes : (end - next_) / kSlotBytes;
  const auto slots = static_cast<std::uint32_t>(
      std::min<std::uint64_t>({static_cast<std::uint64_t>(std::popcount(free_)), ramp_, there, most_slots}));
  ramp_ = std::min(kRampFactor * ramp_, context_->engine.read_slots());
  operation.kind = Operation::Kind::kRead;
  operation.copied = [](Operation& read, std::uint32_t done) { read.stream->on_copied(read, done); };
  operation.only_memory = reads_ahead() && !ahead_.is_needed();
  operation.offset = next_;
  operation.length = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(file_->end - next_, std::uint64_t{slots} * kSlotBytes));
  operation.slot_count = slots;
  for (std::uint32_t i = 0; i < slots; ++i) {
    // The lowest free slot: memory that was used a moment ago is in the cache.
    const auto slot = static_cast<std::uint32_t>(std::countr_zero(free_));
    free_ &= ~bit(slot);
    operation.slots[i] = static_cast<std::uint16_t>(slot);
    operation.targets[i] = connection_->read_view().slot(index_, slot);
  }
  next_ += operation.length;
  ++reading_;
  reads_.push_back(operation);
}

// What there was in memory is the whole of the read; the rest has to be brought in. No other read is in
// flight.
void ServedStream::on_missing(Operation& operation) {
  const std::uint32_t whole = operation.done / kSlotBytes;
  release_slots(operation, whole);
  operation.slot_count = whole;
  operation.length = operation.done = whole * kSlotBytes;
  operation.error = 0;
  next_ = operation.offset + operation.length;
  ahead_.miss(next_);
}

// Has all been read that there was of a file that grows?
bool ServedStream::waits_for_growth() const {
  return state_ == State::kReading && growth_.goes_on() && next_ >= file_->end && in_flight_ == 0;
}

void ServedStream::look_for_growth(std::uint64_t now_ns) {
  if (!waits_for_growth()) {  // something that was brought in in vain has not come yet
    if (state_ == State::kReading && growth_.goes_on()) context_->growth.add(*this, now_ns);
    return;
  }
  const std::int64_t size = SampleDir::size_now(*file_);
  if (size < 0) {
    const int error = static_cast<int>(-size);
    return end_with(
        error_descriptor(code_of_file_error(error), Detail::kReadFailed, error, next_, file_->size));
  }
  const auto there = static_cast<std::uint64_t>(size);
  if (there < file_->size)
    return end_with(error_descriptor(Code::kDataLoss, Detail::kTruncated, 0, there, there));
  growth_.look(there, now_ns);
  file_->size = there;
  file_->end = growth_.readable_end();
  if (file_->map != nullptr && file_->map->size() < file_->end) file_->map = nullptr;  // it grew
  if (next_ < file_->end) {
    ahead_.start(next_, file_->end, now_ns);  // what has just been written is in memory
    reschedule(now_ns);
  } else if (growth_.goes_on()) {
    context_->growth.add(*this, now_ns);
  } else {
    end_with({.kind = DescriptorKind::kEnd});
  }
}

}  // namespace nvr::daemon
