#include "tests/simulation/simulated_engine.h"

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <cstring>

namespace nvr::test {
namespace {

using daemon::Operation;
using shm::kSlotBytes;

constexpr std::uint64_t kStampEvery = 512;
constexpr std::uint32_t kLanes = 3;  // what the plan of a spinning disk has on it besides

std::uint64_t stamp_of(std::uint64_t recording, std::uint64_t offset) {
  return (recording * 0x9e3779b97f4a7c15 + offset) * 0xbf58476d1ce4e5b9 | 1;
}

// Slots that are full already may have been published, returned and given to another read.
std::span<std::byte* const> slots_to_fill(const Operation& operation) {
  if (operation.kind != Operation::Kind::kRead) return {};
  return std::span(operation.targets).first(operation.slot_count).subspan(operation.done / kSlotBytes);
}

// Calls visit(index, byte) for each byte of [offset, offset + length) that is part of a stamp.
template <class Visit>
void for_each_stamped(std::uint64_t recording, std::uint64_t offset, std::size_t length, Visit&& visit) {
  for (std::uint64_t place = offset / kStampEvery * kStampEvery; place < offset + length;
       place += kStampEvery) {
    const std::uint64_t value = stamp_of(recording, place);
    for (std::uint64_t i = 0; i < sizeof(value); ++i)
      if (place + i >= offset && place + i < offset + length)
        visit(place + i - offset, static_cast<std::byte>(value >> (8 * i)));
  }
}

}  // namespace

void stamp(std::uint64_t recording, std::uint64_t offset, std::span<std::byte> target) {
  for_each_stamped(recording, offset, target.size(),
                   [&](std::size_t i, std::byte byte) { target[i] = byte; });
}

bool is_stamped(std::uint64_t recording, std::uint64_t offset, std::span<const std::byte> bytes) {
  bool right = true;
  for_each_stamped(recording, offset, bytes.size(),
                   [&](std::size_t i, std::byte byte) { right &= bytes[i] == byte; });
  return right;
}

void SimulatedEngine::submit(Operation& operation) {
  const bool known =
      std::ranges::any_of(in_flight_, [&](const InFlight& other) { return other.operation == &operation; });
  if (known) object("an operation was submitted while it was in flight");
  if (operation.lane == Operation::Lane::kNone && in_flight_.size() >= depth_ + kLanes)
    object("more operations than the engine's depth");
  const bool is_open = operation.kind == Operation::Kind::kOpen;
  ++(is_open ? opens_ : reads_);
  if (!is_open) last_length_ = operation.length;
  if (!is_open && !open_.contains(operation.file)) object("a read of a file that is not open");
  if (operation.kind == Operation::Kind::kPrefetch) {
    if (operation.length == 0 || operation.done >= operation.length) object("a prefetch of nothing");
  } else if (!is_open) {
    if (operation.slot_count == 0 || operation.length > operation.slot_count * kSlotBytes ||
        operation.done >= operation.length)
      object("a read without a place for its bytes");
    for (const std::byte* const slot : slots_to_fill(operation))
      if (!slots_.insert(slot).second) object("a slot in two reads at a time");
  }
  in_flight_.push_back({.operation = &operation,
                        .due = now_ + upto(random_, faults_.longest_delay),
                        .is_stuck = happens(random_, faults_.never)});
}

std::size_t SimulatedEngine::reap(std::span<daemon::Completion> completions) {
  ++now_;
  std::ranges::shuffle(in_flight_, random_);
  std::size_t count = 0;
  for (auto it = in_flight_.begin(); it != in_flight_.end() && count < completions.size();) {
    if (it->is_stuck || it->due > now_) {
      ++it;
      continue;
    }
    Operation& operation = *it->operation;
    it = in_flight_.erase(it);
    for (const std::byte* const slot : slots_to_fill(operation)) slots_.erase(slot);
    const std::int64_t result = perform(operation);
    completions[count++] = {.operation = &operation, .result = result};
  }
  return count;
}

std::int64_t SimulatedEngine::perform(Operation& operation) {
  if (happens(random_, faults_.interrupted)) return -EINTR;
  if (operation.only_memory && happens(random_, faults_.not_in_memory)) return -EAGAIN;
  if (happens(random_, faults_.again) && !operation.only_memory &&
      retries_[&operation]++ < faults_.most_again)
    return -EAGAIN;
  const bool is_open = operation.kind == Operation::Kind::kOpen;
  const std::int64_t result = is_open ? open(operation) : read(operation);
  if (!is_open && result < 0) ++failed_reads_;
  if (result <= 0 || operation.done + result == operation.length) retries_.erase(&operation);
  return result;
}

std::int64_t SimulatedEngine::open(Operation& operation) {
  const std::uint64_t id = operation.recording.composite();
  const auto file = files_.find(id);
  if (file == files_.end()) return -ENOENT;
  if (happens(random_, faults_.open_fails)) return -EACCES;
  if (file->second.open_error != 0) return -file->second.open_error;
  operation.opened = std::make_unique<daemon::SampleFile>();
  operation.opened->device = 1;
  operation.opened->inode = id;
  operation.opened->size = file->second.size;
  operation.opened->dio_align = file->second.block;
  if (file->second.fd >= 0) operation.opened->fd.reset(fcntl(file->second.fd, F_DUPFD_CLOEXEC, 0));
  open_[operation.opened.get()] = id;
  return 0;
}

std::int64_t SimulatedEngine::read(Operation& operation) {
  const std::uint64_t id = operation.recording.composite();
  const SimulatedFile& file = files_.at(id);
  const std::uint64_t position = operation.position();
  if (position >= file.size) return 0;
  if (position >= file.bad_at) return -file.error;
  std::uint64_t count = std::min(std::uint64_t{operation.left()}, file.size - position);
  if (file.block > 0 && (position + count - 1) / file.block * file.block >= file.bad_at) return -file.error;
  count = std::min(count, file.bad_at - position);
  if (count > 1 && happens(random_, faults_.short_read)) count = 1 + upto(random_, count - 2);
  const bool has_slots = operation.kind == Operation::Kind::kRead;
  for (std::uint64_t done = 0; has_slots && done < count;) {
    const std::uint64_t place = operation.done + done;
    const std::uint64_t in_slot = place % kSlotBytes;
    const std::uint64_t length = std::min(kSlotBytes - in_slot, count - done);
    stamp(id, position + done, std::span(operation.targets[place / kSlotBytes] + in_slot, length));
    done += length;
  }
  if (has_slots && happens(random_, faults_.shown_early))
    operation.on_copied(operation.done + static_cast<std::uint32_t>(upto(random_, count)));
  return static_cast<std::int64_t>(count);
}

void SimulatedEngine::close(std::unique_ptr<daemon::SampleFile> file) {
  if (open_.erase(file.get()) != 1) object("a file was closed that was not open");
  const bool used = std::ranges::any_of(
      in_flight_, [&](const InFlight& other) { return other.operation->file == file.get(); });
  if (used) object("a file was closed under a read");
}

void SimulatedEngine::release_all() {
  faults_.never = 0;
  for (InFlight& entry : in_flight_) entry.is_stuck = false;
}

bool SimulatedEngine::writes_to(const std::byte* begin, const std::byte* end) const {
  const auto it = slots_.lower_bound(begin);
  return it != slots_.end() && *it < end;
}

void SimulatedEngine::object(std::string what) {
  if (problem_.empty()) problem_ = std::move(what);
}

}  // namespace nvr::test
