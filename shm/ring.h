// The rings: descriptors (daemon to client), returned slots and commands (client to daemon). One producer and
// one consumer each, as separate types, so that a call from the wrong side does not compile. None of them
// sleeps or rings; shm/wake.h does.
//
// What always holds:
//   1. Only the producer stores to a ring's index and cells; a consumer has no word in shared memory at all:
//   how far
//      it has come shows in what it does next (a returned slot, an OPEN after a terminal).
//   2. Capacity, mask and own cursor are in private memory. A peer's index is believed by motion only:
//      `published - seen <= capacity`.
//   3. Every cell is copied once; what is used afterwards is the copy.
// Indices wrap at 2^32; all arithmetic on them is unsigned.
//
// Each is a template over its memory (shm/memory.h). The programs use the aliases at the end.
#pragma once

#include <array>
#include <bit>
#include <cassert>
#include <cstdint>
#include <optional>

#include "shm/memory.h"
#include "shm/protocol.h"
#include "shm/step.h"

namespace nvr::shm {

// How far a peer's index has moved from the one last seen; nothing if that is more than the ring can hold,
// which only a broken or hostile peer brings about.
[[nodiscard]] constexpr std::optional<std::uint32_t> motion(std::uint32_t published, std::uint32_t seen,
                                                            std::uint32_t capacity) {
  const std::uint32_t moved = published - seen;
  if (moved > capacity) return std::nullopt;
  return moved;
}

// ---- Descriptors: disk thread -> client
// --------------------------------------------------------------------------

template <class Memory>
class BasicDescriptorProducer {
  using Header = typename Memory::PublicationHeader;
  using Cell = typename Memory::DescriptorCell;

 public:
  BasicDescriptorProducer(Header& shared, Cell* ring, std::uint32_t capacity, std::uint32_t first_index)
      : shared_(&shared), ring_(ring), mask_(capacity - 1), next_(first_index) {
    assert(std::has_single_bit(capacity));
    shared_->head.store(first_index);
  }

  // Writes the next descriptor; the client sees it with the next publish(). The place is free because credit
  // and generations bound what the client has not taken (Geometry::descriptor_capacity).
  void put(const Descriptor& descriptor) { ring_[next_++ & mask_] = descriptor; }

  // Shows everything put so far. seq_cst: release for the descriptors (pairs with DescriptorConsumer::take),
  // and a store that the following load of `waiting` and `want_byte` must not pass (pairs with
  // Sleeper::announce).
  void publish() { shared_->head.store(next_, std::memory_order_seq_cst); }

  [[nodiscard]] const typename Memory::Word& futex_word() const { return shared_->head; }
  [[nodiscard]] std::uint32_t index() const { return next_; }

 private:
  Header* shared_;
  Cell* ring_;
  std::uint32_t mask_;
  std::uint32_t next_;
};

template <class Memory>
class BasicDescriptorConsumer {
  using Header = typename Memory::PublicationHeader;
  using Cell = typename Memory::DescriptorCell;

 public:
  BasicDescriptorConsumer(const Header& shared, const Cell* ring, std::uint32_t capacity,
                          std::uint32_t first_index)
      : shared_(&shared), ring_(ring), mask_(capacity - 1), next_(first_index), seen_head_(first_index) {}

  enum class Look { kEmpty, kReady, kCorrupt };

  // Is there a descriptor to take? kCorrupt: the daemon's index moved further than the ring is long.
  [[nodiscard]] Look look() {
    if (seen_head_ != next_) return Look::kReady;
    // Pairs with DescriptorProducer::publish(). seq_cst because this is also the second look of a client that
    // has announced its sleep (on x86 the same instruction as an acquire).
    const std::uint32_t head = shared_->head.load(std::memory_order_seq_cst);
    const auto moved = motion(head, next_, mask_ + 1);
    if (!moved) return Look::kCorrupt;
    seen_head_ = head;
    return *moved == 0 ? Look::kEmpty : Look::kReady;
  }

  // Precondition: look() said kReady.
  [[nodiscard]] Descriptor take() {
    assert(seen_head_ != next_);
    return ring_[next_++ & mask_];
  }

  // For the futex: sleep while the word still has this value.
  [[nodiscard]] const typename Memory::Word& futex_word() const { return shared_->head; }
  [[nodiscard]] std::uint32_t seen_head() const { return seen_head_; }

 private:
  const Header* shared_;
  const Cell* ring_;
  std::uint32_t mask_;
  std::uint32_t next_;
  std::uint32_t seen_head_;
};

// ---- Returned slots: client -> disk thread
// --------------------------------------------------------------------------

template <class Memory>
class BasicReturnProducer {
  using Header = typename Memory::CreditHeader;
  using Cell = typename Memory::ReturnCell;

 public:
  BasicReturnProducer(Header& shared, Cell* ring, std::uint32_t capacity, std::uint32_t first_index)
      : shared_(&shared), ring_(ring), mask_(capacity - 1), next_(first_index) {
    shared_->return_tail.store(first_index);
  }

  // There is always room: no more slots can come back than the window has, and the ring is that long.
  // seq_cst: release for the cell (pairs with ReturnConsumer::take), and not to be passed by the following
  // load of `need_doorbell` (pairs with Sleeper::announce in the disk thread).
  void put(std::uint32_t slot) {
    ring_[next_++ & mask_].store(slot, std::memory_order_relaxed);  // ordered by return_tail
    NVR_STEP("ring.return_written");
    shared_->return_tail.store(next_, std::memory_order_seq_cst);
  }

 private:
  Header* shared_;
  Cell* ring_;
  std::uint32_t mask_;
  std::uint32_t next_;
};

template <class Memory>
class BasicReturnConsumer {
  using Header = typename Memory::CreditHeader;
  using Cell = typename Memory::ReturnCell;

 public:
  BasicReturnConsumer(const Header& shared, const Cell* ring, std::uint32_t capacity,
                      std::uint32_t first_index)
      : shared_(&shared), ring_(ring), mask_(capacity - 1), seen_(first_index) {}

  // Calls on_slot(number) for each slot returned since the last call; on_slot says false to object (a number
  // that was not lent). False: the client broke the protocol. Each cell is read once; the number is not
  // checked here.
  template <class OnSlot>
  [[nodiscard]] bool take(OnSlot&& on_slot) {
    // Pairs with ReturnProducer::put(); also the disk thread's second look, hence seq_cst.
    const std::uint32_t tail = shared_->return_tail.load(std::memory_order_seq_cst);
    if (!motion(tail, seen_, mask_ + 1)) return false;
    while (seen_ != tail) {
      if (!on_slot(ring_[seen_++ & mask_].load(std::memory_order_relaxed))) return false;
    }
    return true;
  }

 private:
  const Header* shared_;
  const Cell* ring_;
  std::uint32_t mask_;
  std::uint32_t seen_;
};

// ---- Commands: client -> disk thread
// -------------------------------------------------------------------------------

template <class Memory>
class BasicCommandProducer {
  using Header = typename Memory::WriteHeader;
  using Cell = typename Memory::CommandCell;

 public:
  BasicCommandProducer(Header& shared, Cell* ring, std::uint32_t capacity, std::uint32_t first_index)
      : shared_(&shared), ring_(ring), mask_(capacity - 1), next_(first_index) {
    shared_->command_tail.store(first_index);
  }

  // There is always room (Geometry::command_capacity). seq_cst as in ReturnProducer::put; pairs with
  // CommandConsumer::take and with Sleeper::announce in the disk thread.
  void put(const Command& command) {
    const auto words = std::bit_cast<std::array<std::uint64_t, 8>>(command);
    Cell& cell = ring_[next_++ & mask_];
    for (std::size_t i = 0; i < words.size(); ++i) cell.words[i].store(words[i], std::memory_order_relaxed);
    NVR_STEP("ring.command_written");
    shared_->command_tail.store(next_, std::memory_order_seq_cst);
  }

 private:
  Header* shared_;
  Cell* ring_;
  std::uint32_t mask_;
  std::uint32_t next_;
};

template <class Memory>
class BasicCommandConsumer {
  using Header = typename Memory::WriteHeader;
  using Cell = typename Memory::CommandCell;

 public:
  BasicCommandConsumer(const Header& shared, const Cell* ring, std::uint32_t capacity,
                       std::uint32_t first_index)
      : shared_(&shared), ring_(ring), mask_(capacity - 1), seen_(first_index) {}

  // Calls on_command(copy) for each command posted since the last call; on_command says false to object.
  // False: the client broke the protocol. The copy is raw: decode() judges it.
  template <class OnCommand>
  [[nodiscard]] bool take(OnCommand&& on_command) {
    // Pairs with CommandProducer::put(); also the disk thread's second look, hence seq_cst.
    const std::uint32_t tail = shared_->command_tail.load(std::memory_order_seq_cst);
    if (!motion(tail, seen_, mask_ + 1)) return false;
    while (seen_ != tail) {
      const Cell& cell = ring_[seen_++ & mask_];
      std::array<std::uint64_t, 8> words;
      for (std::size_t i = 0; i < words.size(); ++i) words[i] = cell.words[i].load(std::memory_order_relaxed);
      if (!on_command(std::bit_cast<Command>(words))) return false;
    }
    return true;
  }

 private:
  const Header* shared_;
  const Cell* ring_;
  std::uint32_t mask_;
  std::uint32_t seen_;
};

// ---- As the programs use them
// --------------------------------------------------------------------------------------

using DescriptorProducer = BasicDescriptorProducer<SharedMemory>;
using DescriptorConsumer = BasicDescriptorConsumer<SharedMemory>;
using ReturnProducer = BasicReturnProducer<SharedMemory>;
using ReturnConsumer = BasicReturnConsumer<SharedMemory>;
using CommandProducer = BasicCommandProducer<SharedMemory>;
using CommandConsumer = BasicCommandConsumer<SharedMemory>;

}  // namespace nvr::shm
