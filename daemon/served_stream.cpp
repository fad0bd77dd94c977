// How a stream begins and ends, and what others are told of it. What it asks of the disk is in
// stream_reading.cpp, what its client gets in stream_publishing.cpp.
#include "daemon/served_stream.h"

#include <errno.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <utility>

#include "daemon/connection.h"
#include "daemon/drop_behind.h"
#include "daemon/error_descriptor.h"
#include "daemon/slot_mask.h"
#include "nvr/error.h"
#include "shm/clock.h"
#include "shm/step.h"

namespace nvr::daemon {
namespace {

using shm::Descriptor;
using shm::DescriptorKind;
using shm::Detail;
using shm::kSlotBytes;

constexpr std::uint64_t kFirstVisitBytes = 1 << 20;

Descriptor open_error(int sys_errno, CachePolicy cache) {
  if (cache == CachePolicy::kDirect && (sys_errno == EINVAL || sys_errno == EOPNOTSUPP))
    return error_descriptor(Code::kUnimplemented, Detail::kNotSupported, sys_errno, 0, 0);
  if (sys_errno == EMFILE || sys_errno == ENFILE)
    return error_descriptor(Code::kResourceExhausted, Detail::kTooManyOpen, sys_errno, 0, 0);
  const bool not_regular = sys_errno == ELOOP || sys_errno == EISDIR || sys_errno == ENXIO;
  return error_descriptor(code_of_file_error(sys_errno),
                          not_regular ? Detail::kNotRegular : Detail::kOpenFailed, sys_errno, 0, 0);
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
  begin_generation(command, now_ns);
  connection_->stream_opened();
  if (command.begin > INT64_MAX || command.end > INT64_MAX) {
    end_with(error_descriptor(Code::kOutOfRange, Detail::kRangeBeyondEnd, EOVERFLOW, 0, 0));
  } else if (command.cache == CachePolicy::kDirect && !context_->engine.reads_direct()) {
    end_with(error_descriptor(Code::kUnimplemented, Detail::kNotSupported, 0, 0, 0));
  } else if (const auto refusal = take_place_for_file()) {
    end_with(*refusal);
  } else {
    context_->scheduler.enqueue(*this, Scheduler::Place::kNew, now_ns);
    account_waiting();
    show(now_ns);
  }
  return std::nullopt;
}

// A queued open counts, too: nothing waits for a descriptor.
std::optional<Descriptor> ServedStream::take_place_for_file() {
  using Verdict = DescriptorBudget::Verdict;
  const Verdict verdict = connection_->take_place_for_file();
  has_place_ = verdict == Verdict::kTaken;
  if (has_place_) return std::nullopt;
  return error_descriptor(Code::kResourceExhausted, Detail::kTooManyOpen,
                          verdict == Verdict::kUserHasAll ? 0 : EMFILE, 0,
                          connection_->descriptors().most(verdict));
}

// Nothing is left of the last generation but the slots that its client still holds.
void ServedStream::begin_generation(const shm::Command& command, std::uint64_t now_ns) {
  assert(file_ == nullptr && in_flight_ == 0 && reading_ == 0 && reads_.empty());
  assert(!has_place_ && accounted_ahead_ == 0 && !accounted_waiting_ && !is_queued() && !wants_visit());
  generation_ = command.generation;
  command_ = command;
  opened_ns_ = now_ns;
  state_ = State::kQueued;
  next_ = command.begin;
  ramp_ = 1;
  visit_ramp_ = kFirstVisitBytes;
  first_published_ = opened_ = false;
  must_publish_ = false;
  growth_ = Growth();
  is_told_finished_ = false;
  ahead_.start(command.begin, command.begin, now_ns);
  terminal_ = {};
  Scheduler::forget(*this);
  GrowthWatch::forget(*this);
  facts_.opened(command, now_ns);
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
    connection_->rings_without_work = 0;
    return true;
  });
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
       .offset = static_cast<std::uint64_t>(file_->birth_ns),
       .file_device = file_->device,
       .file_inode = file_->inode,
       .file_size = file_->size,
       .file_mtime_ns = file_->mtime_ns});
  if ((command_.flags & shm::kOpenStatOnly) != 0 || (file_->begin == file_->end && !growth_.goes_on()))
    return end_with({.kind = DescriptorKind::kEnd});
  state_ = State::kReading;
  ahead_.start(file_->begin, file_->end, now_ns);
  if (waits_for_growth()) context_->growth.add(*this, now_ns, true);
  if (free_ == 0 || waits_for_growth())
    return publish();  // no chunk can follow: that every slot is still held is the reader's news
  // Nobody is woken for this: the first chunk follows, or an error, and either wakes. Who looks sees it.
  descriptors_.publish();
}

void ServedStream::end_with(const Descriptor& terminal) {
  Scheduler::remove(*this);
  Visits::remove(*this);
  GrowthWatch::remove(*this);
  terminal_ = terminal;
  state_ = State::kEnding;
  context_->statistics.streams_ended.add();
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

namespace {

Blame blame_for(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kPermissionDenied:
    case Code::kFailedPrecondition:
    case Code::kOutOfRange:
    case Code::kUnimplemented:  // a cache policy that the engine has not
      return kRequestFailed;
    case Code::kResourceExhausted:
      return kBoundReached;
    default:
      return kDiskFailed;
  }
}

}  // namespace

void ServedStream::account_end() {
  const bool has_failed = terminal_.kind == DescriptorKind::kError;
  if (!opened_) count_open(has_failed ? static_cast<Code>(terminal_.code) : Code::kCancelled);
  if (!has_failed) return;
  context_->statistics.errors.add();
  const auto number = static_cast<std::size_t>(std::max(terminal_.sys_errno, 0));
  context_->statistics.errors_by_errno[std::min(number, kErrnos - 1)].add();
  context_->statistics.errors_by_blame[blame_for(static_cast<Code>(terminal_.code))].add();
}

void ServedStream::publish_terminal_if_settled() {
  if (state_ != State::kEnding) return;
  if (in_flight_ > 0) return show(shm::now_ns());
  NVR_STEP("daemon.about_to_end");
  state_ = State::kIdle;
  show(shm::now_ns());
  context_->statistics.streams_ended.subtract(1);
  connection_->stream_ended();
  account_end();
  if (!connection_->is_condemned()) {
    put(terminal_);
    publish();
  }
  NVR_STEP("daemon.ended");
  if (file_ && reads_ahead() && ahead_.until() > next_) give_back(*file_, next_, ahead_.until());
  if (file_) context_->engine.close(std::move(file_));  // after the client has what it waits for
  if (std::exchange(has_place_, false)) connection_->give_back_place_of_file();
}

}  // namespace nvr::daemon
