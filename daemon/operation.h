// One request to the disk: opening a recording, bringing a stretch of it into the page cache, or reading one
// into free slots. Disk thread only.
//
// An operation belongs to the engine from submit() until its completion is reaped: until then neither it nor
// the slots it names may be touched, reused or unmapped, whatever has become of the client (invariant 5).
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <boost/circular_buffer.hpp>
#include <boost/intrusive/list.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "daemon/sample_dir.h"
#include "nvr/recording.h"
#include "shm/protocol.h"

namespace nvr::daemon {

class ServedStream;

// Most operations that are with an engine at a time.
inline constexpr std::uint32_t kMaxOperations = 64;
// Most slots that one read fills: a whole window.
inline constexpr std::uint32_t kMaxReadSlots = shm::kMaxSlots;

struct Operation : boost::intrusive::list_base_hook<> {
  enum class Kind : std::uint8_t { kOpen, kPrefetch, kRead };
  // From a window to a block in four tries, for a drive may take seconds for each that fails.
  static constexpr std::uint32_t kShorter = 16;

  std::uint32_t index = 0;         // in its pool, and in the InFlight table
  ServedStream* stream = nullptr;  // whose it is; outlives the operation
  Kind kind = Kind::kOpen;
  RecordingId recording;

  CachePolicy cache = CachePolicy::kNormal;
  Priority priority = Priority::kPlayback;

  // Open: made by the engine, `opened`. Else: the stream's file.
  SampleFile* file = nullptr;
  std::unique_ptr<SampleFile> opened;

  // Else: [offset, offset + length) of the file.
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  // Read: slot i takes its i-th 64 KiB.
  bool only_memory = false;  // EAGAIN where the disk would have to be asked
  std::uint32_t slot_count = 0;
  std::array<std::uint16_t, kMaxReadSlots> slots = {};
  std::array<std::byte*, kMaxReadSlots> targets = {};
  // Its stream's: called between submit() and the completion when its first `done` bytes are there and the
  // rest comes at memory's speed.
  void (*copied)(Operation& operation, std::uint32_t done) = nullptr;
  void on_copied(std::uint32_t until) {
    if (copied != nullptr) copied(*this, until);
  }

  std::uint32_t done = 0;       // bytes read so far
  std::uint32_t most = 0;       // bytes that the engine asks for at a time, after shorten(); 0: all
  std::uint32_t published = 0;  // slots of it that the client has been shown
  std::uint32_t retries = 0;    // of EAGAIN
  bool quarantined = false;     // its stream has ended; the slots are nobody's until the engine lets go
  bool drops = false;           // DropBehind's: what the read brings into the page cache is its own
  bool asks_disk = false;       // the engine's: not all of it was in memory
  bool finished = false;        // no longer the engine's; `error` says how it ended
  int error = 0;                // errno; 0 and done < length: the file ended
  std::uint64_t submitted_ns = 0;

  // How it takes part in the sharing of a spinning disk (visit_plan.h): as the first step of a new stream, as
  // a segment of a visit, or not.
  enum class Lane : std::uint8_t { kNone, kNew, kSegment } lane = Lane::kNone;
  bool sought = false;  // it does not follow what was asked of the disk before

  // File offset of the next byte to read.
  [[nodiscard]] std::uint64_t position() const { return offset + done; }
  // Bytes to ask for now.
  [[nodiscard]] std::uint32_t left() const {
    return most == 0 ? length - done : std::min(most, length - done);
  }
  // Asks for less of the rest from now on, up to the end of a block, because the rest could not be read as a
  // whole. False: it was one block already.
  [[nodiscard]] bool shorten(std::uint32_t block) {
    const auto in_block = static_cast<std::uint32_t>(position() % block);
    if (left() <= block - in_block) return false;
    most = std::max(left() / kShorter / block * block, block) - in_block;
    retries = 0;
    return true;
  }
  // Where the bytes from file offset `at` on go, as far as the slot reaches.
  [[nodiscard]] std::span<std::byte> target_of(std::uint64_t at) const {
    const auto place = static_cast<std::uint32_t>(at - offset);
    const std::uint32_t in_slot = place % shm::kSlotBytes;
    return {targets[place / shm::kSlotBytes] + in_slot, std::min(shm::kSlotBytes - in_slot, length - place)};
  }
  // Where left() bytes of the read go: one part per run of slots that lie side by side. Returns how many.
  [[nodiscard]] std::uint32_t parts_left(std::array<iovec, kMaxReadSlots>& parts) const {
    std::uint32_t count = 0;
    const std::uint32_t end = done + left();
    for (std::uint32_t at = done; at < end;) {
      const std::uint32_t in_slot = at % shm::kSlotBytes;
      std::byte* const target = targets[at / shm::kSlotBytes] + in_slot;
      const std::uint32_t part = std::min(shm::kSlotBytes - in_slot, end - at);
      iovec* const last = count > 0 ? &parts[count - 1] : nullptr;
      if (last != nullptr && static_cast<std::byte*>(last->iov_base) + last->iov_len == target)
        last->iov_len += part;
      else
        parts[count++] = {.iov_base = target, .iov_len = part};
      at += part;
    }
    return count;
  }
};

// Operations in some order, first in, first out, with room for all of them: nothing is allocated as they come
// and go.
class OperationQueue : public boost::circular_buffer<Operation*> {
 public:
  OperationQueue() : boost::circular_buffer<Operation*>(kMaxOperations) {}
};

// The operations that can be in flight at a time; their addresses never change.
class OperationPool {
 public:
  explicit OperationPool(std::uint32_t size) : operations_(size) {
    for (std::uint32_t i = size; i-- > 0;) {
      operations_[i].index = i;
      free_.push_back(&operations_[i]);
    }
  }

  [[nodiscard]] bool empty() const { return free_.empty(); }
  [[nodiscard]] std::size_t in_use() const { return operations_.size() - free_.size(); }
  // Precondition: !empty(). Everything but the index is as new.
  [[nodiscard]] Operation& take() {
    Operation& operation = *free_.back();
    free_.pop_back();
    return operation;
  }
  void give_back(Operation& operation) {
    operation.stream = nullptr;
    operation.file = nullptr;
    operation.opened.reset();
    operation.done = operation.most = operation.published = operation.retries = 0;
    operation.slot_count = operation.length = 0;
    operation.finished = operation.quarantined = operation.drops = operation.only_memory = false;
    operation.copied = nullptr;
    operation.lane = Operation::Lane::kNone;
    operation.error = 0;
    free_.push_back(&operation);
  }

 private:
  std::vector<Operation> operations_;
  std::vector<Operation*> free_;
};

}  // namespace nvr::daemon
