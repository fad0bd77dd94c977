#include "daemon/served_stream.h"

#include <errno.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "daemon/connection.h"
#include "daemon/drop_behind.h"
#include "daemon/place_on_disk.h"
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

// One on the disk and one queued; a stream that is stuck takes no more of the engine than that.
constexpr std::uint32_t kMaxOperationsInFlight = 2;
// A stream's first read is short, so that its first chunk is soon there; the next are as many times longer.
constexpr std::uint32_t kRampFactor = 4;
// The same for what is brought in ahead: the way there costs ten times what these bytes do.
constexpr std::uint64_t kFirstPrefetchBytes = 128 << 10;
constexpr std::uint64_t kFirstVisitBytes = 1 << 20;

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
  growth_ = Growth();
  is_told_finished_ = false;
  first_published_ = opened_ = false;
  next_ = command.begin;
  facts_.opened(command, now_ns);
  connection_->stream_opened();
  if (command.begin > INT64_MAX || command.end > INT64_MAX) {
    end_with(error_descriptor(Code::kOutOfRange, Detail::kRangeBeyondEnd, EOVERFLOW, 0, 0));
  } else if (command.cache == CachePolicy::kDirect && !context_->engine.reads_direct()) {
    end_with(error_descriptor(Code::kUnimplemented, Detail::kNotSupported, 0, 0, 0));
  } else {
    context_->scheduler.enqueue(*this, Scheduler::Place::kNew, now_ns);
    account_waiting();
    show(now_ns);
  }
  return std::nullopt;
}

std::optional<const char*> ServedStream::close(std::uint32_t generation) {
  if (generation != generation_) return "CLOSE of a generation that is not the last one";
  if (state_ != State::kIdle && state_ != State::kEnding) end_with({.kind = DescriptorKind::kClosed});
  return std::nullopt;
}

std::optional<const char*> ServedStream::finish(std::uint32_t generation, std::uint64_t now_ns) {
  if (generation != generation_) return "FINISH of a generation that is not the last one";
  if (state_ == State::kIdle || state_ == State::kEnding) return std::nullopt;
  if ((command_.flags & shm::kOpenFollow) == 0) return "FINISH of a stream that follows nothing";
  is_told_finished_ = true;  // perhaps the file has not been opened yet
  growth_.finish();
  if (waits_for_growth()) context_->growth.add(*this, now_ns, true);
  return std::nullopt;
}

void ServedStream::abandon() {
  context_->statistics.slots_lent.subtract(static_cast<std::uint64_t>(std::popcount(lent_)));
  lent_ = 0;  // nothing comes back any more
  if (state_ != State::kIdle && state_ != State::kEnding) end_with({.kind = DescriptorKind::kClosed});
}

bool ServedStream::take_credit() {
  const std::uint32_t window = connection_->geometry().slots;
  return returns_.take([&](std::uint32_t slot) {
    if (slot >= window || (lent_ & bit(slot)) == 0) return false;
    lent_ &= ~bit(slot);
    free_ |= bit(slot);
    context_->statistics.slots_lent.subtract(1);
    return true;
  });
}

void ServedStream::reschedule(std::uint64_t now_ns) {
  account_waiting();
  show(now_ns);
  if (state_ != State::kReading || next_ >= file_->end) return;
  const bool could_read = can_read();
  const bool is_full = free_ == 0 && (could_read || !reads_ahead());
  ahead_.set_reader_waits(is_full, now_ns);
  if ((is_full || could_read) && reading_ < allowed_in_flight()) {
    const auto first = context_->plan != nullptr ? Scheduler::Place::kBegun : Scheduler::Place::kNew;
    const auto place = is_full                 ? Scheduler::Place::kStarved
                       : next_ == file_->begin ? first
                                               : Scheduler::Place::kRead;
    context_->scheduler.enqueue(*this, place, now_ns);
  }
  if (context_->plan != nullptr) wish_for_visit(now_ns);
}

// On a spinning disk; without it, and past the page cache, reads go to the disk themselves.
bool ServedStream::reads_ahead() const {
  return context_->plan != nullptr && command_.cache == CachePolicy::kNormal;
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

// Who has something to read and no room for it waits for its reader, not for the disk.
void ServedStream::account_waiting() {
  const bool has_room = reading_ > 0 || (free_ != 0 && !waits_for_growth());
  const bool waits =
      state_ == State::kQueued || state_ == State::kOpening || (state_ == State::kReading && has_room);
  if (std::exchange(accounted_waiting_, waits) == waits) return;
  if (waits)
    context_->statistics.streams_waiting.add();
  else
    context_->statistics.streams_waiting.subtract(1);
}

StreamWait ServedStream::waits_for() const {
  if (state_ == State::kIdle) return StreamWait::kNothing;
  // What is brought in ahead meanwhile nobody waits for yet.
  if (state_ == State::kReading && free_ == 0 && reading_ == 0) return StreamWait::kReader;
  return in_flight_ > 0 ? StreamWait::kDisk : StreamWait::kQueue;
}

void ServedStream::show(std::uint64_t now_ns) {
  std::uint64_t position = next_;
  if (!reads_.empty()) {
    const Operation& first = reads_.front();
    position = first.offset + std::min(first.length, first.published * kSlotBytes);
  }
  facts_.show(state_, waits_for(), position, now_ns);
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

void ServedStream::on_progress(Operation& operation) {
  if (state_ != State::kReading || &operation != &reads_.front()) return;
  const std::uint32_t before = operation.published;
  publish_complete_slots(operation);
  if (operation.published != before) publish();
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

void ServedStream::on_opened(Operation& operation) {
  if (operation.error != 0) return end_with(open_error(operation.error, command_.cache));
  NVR_STEP("daemon.file_opened");
  file_ = std::move(operation.opened);
  file_->window = {connection_->read_view().slot(index_, 0),
                   std::size_t{connection_->geometry().slots} * kSlotBytes};
  const bool to_end = (command_.flags & shm::kOpenToEnd) != 0;
  const bool follows = (command_.flags & shm::kOpenFollow) != 0;
  const std::uint64_t now_ns = shm::now_ns();
  file_->begin = command_.begin;
  file_->end = to_end ? file_->size : command_.end;
  if (follows && file_->begin <= file_->size) {
    growth_ =
        Growth(file_->begin, to_end ? UINT64_MAX : command_.end, file_->size, command_.quiet_ms, now_ns);
    if (is_told_finished_) growth_.finish();
    file_->end = growth_.readable_end();
    file_->is_counted = true;  // a map of it would be of what it was
  }
  facts_.set_end(file_->end);
  if (file_->begin > file_->end || file_->end > file_->size)
    return end_with(error_descriptor(Code::kOutOfRange, Detail::kRangeBeyondEnd, 0, 0, file_->size));
  put({.kind = DescriptorKind::kOpened,
       .file_device = file_->device,
       .file_inode = file_->inode,
       .file_size = file_->size,
       .file_mtime_ns = file_->mtime_ns});
  if ((command_.flags & shm::kOpenStatOnly) != 0 || (file_->begin == file_->end && !growth_.goes_on()))
    return end_with({.kind = DescriptorKind::kEnd});
  state_ = State::kReading;
  next_ = file_->begin;
  ramp_ = 1;
  ahead_.start(file_->begin, file_->end, now_ns);
  visit_ramp_ = kFirstVisitBytes;
  if (waits_for_growth()) context_->growth.add(*this, now_ns, true);
  if (free_ == 0 || waits_for_growth())
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
    release_slots(operation, operation.published);
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
  if (reads_.empty() && next_ >= file_->end) {
    if (!growth_.goes_on()) return end_with({.kind = DescriptorKind::kEnd});
    context_->growth.add(*this, shm::now_ns(), is_told_finished_);
  }
  if (published) publish();
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
    return end_with(error_descriptor(code_from_errno(error), Detail::kReadFailed, error, next_, file_->size));
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

void ServedStream::publish_complete_slots(Operation& operation) {
  while (operation.published < operation.slot_count) {
    const std::uint32_t i = operation.published;
    const std::uint32_t length = slot_length(operation, i);
    if (operation.done < i * kSlotBytes + length) break;
    lent_ |= bit(operation.slots[i]);
    context_->statistics.slots_lent.add();
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
  NVR_STEP("daemon.published");
  if (reader_.should_ring()) {
    if (!shm::futex_wake_one(descriptors_.futex_word())) reader_.take_back();
    context_->statistics.wakes.add();
  }
  NVR_STEP("daemon.woke");
  if (connection_->wake_event_loop()) context_->statistics.wakes.add();
}

void ServedStream::end_with(const Descriptor& terminal) {
  Scheduler::remove(*this);
  Visits::remove(*this);
  GrowthWatch::remove(*this);
  terminal_ = terminal;
  state_ = State::kEnding;
  account_ahead();
  account_waiting();
  // Reads that were finished out of order and will not be published.
  for (auto it = reads_.begin(); it != reads_.end();) {
    Operation& operation = *it++;
    if (!operation.finished) {
      operation.quarantined = true;
      context_->statistics.quarantined_bytes.add(std::uint64_t{operation.slot_count} * kSlotBytes);
      continue;
    }
    release_slots(operation, operation.published);
    reads_.erase(reads_.iterator_to(operation));
    context_->operations.give_back(operation);
  }
  publish_terminal_if_settled();
}

void ServedStream::count_open(Code result) {
  context_->statistics.opens_by_code[std::min<std::size_t>(static_cast<std::size_t>(result), kCodes - 1)]
      .add();
}

void ServedStream::account_end() {
  const bool has_failed = terminal_.kind == DescriptorKind::kError;
  if (!opened_) count_open(has_failed ? static_cast<Code>(terminal_.code) : Code::kCancelled);
  if (!has_failed) return;
  context_->statistics.errors.add();
  const auto number = static_cast<std::size_t>(std::max(terminal_.sys_errno, 0));
  context_->statistics.errors_by_errno[std::min(number, kErrnos - 1)].add();
}

void ServedStream::publish_terminal_if_settled() {
  if (state_ != State::kEnding) return;
  if (in_flight_ > 0) return show(shm::now_ns());
  NVR_STEP("daemon.about_to_end");
  state_ = State::kIdle;
  show(shm::now_ns());
  connection_->stream_ended();
  account_end();
  if (!connection_->is_condemned()) {
    put(terminal_);
    publish();
  }
  NVR_STEP("daemon.ended");
  if (file_ && reads_ahead() && ahead_.until() > next_) give_back(*file_, next_, ahead_.until());
  if (file_) context_->engine.close(std::move(file_));  // after the client has what it waits for
}

}  // namespace nvr::daemon
