// The memory of the proof's world as shm/ring.h and shm/wake.h want it: see shm/memory.h.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "shm/protocol.h"
#include "tests/proof/world.h"

namespace nvr::proof {

// Handles: copies are the same word or cell.
class Word {
 public:
  explicit Word(std::uint32_t initial = 0) : Word(*World::current, initial) {}
  explicit Word(World& world, std::uint32_t initial = 0) : word_(world.add_word(initial)) {}
  std::uint32_t load(std::memory_order order = std::memory_order_seq_cst) const {
    return World::current->load(word_, bits(order));
  }
  void store(std::uint32_t value, std::memory_order order = std::memory_order_seq_cst) {
    World::current->store(word_, value, bits(order));
  }
  std::uint32_t fetch_add(std::uint32_t value, std::memory_order order = std::memory_order_seq_cst) {
    return World::current->add(word_, value, bits(order));
  }
  [[nodiscard]] std::uint8_t id() const { return word_; }

 private:
  static constexpr std::uint32_t bits(std::memory_order order) {
    switch (order) {
      case std::memory_order_relaxed:
        return 0;
      case std::memory_order_release:
        return kRelease;
      case std::memory_order_seq_cst:
        return kSeqCst | kAcquire | kRelease;
      default:
        return order == std::memory_order_acq_rel ? kAcquire | kRelease : kAcquire;
    }
  }
  std::uint8_t word_;
};

template <class T>
class Plain {
 public:
  Plain() : Plain(T{}) {}
  explicit Plain(const T& initial, bool is_read_once = false)
      : cell_(World::current->add_cell(sizeof(T), &initial, is_read_once)) {}
  Plain(const Plain&) = default;
  Plain& operator=(const Plain&) = delete;
  Plain& operator=(const T& value) {
    World::current->access_cell(cell_, nullptr, &value);
    return *this;
  }
  operator T() const {
    std::array<std::byte, sizeof(T)> bytes;
    World::current->access_cell(cell_, bytes.data(), nullptr);
    return std::bit_cast<T>(bytes);
  }

 private:
  std::uint8_t cell_;
};

// An atomic that an index orders: the proof wants that order, and then relaxed is enough.
template <class T>
class OrderedWord : private Plain<T> {
 public:
  OrderedWord() : Plain<T>(T{}, true) {}
  T load(std::memory_order) const { return *this; }
  void store(T value, std::memory_order) { Plain<T>::operator=(value); }
};

struct Memory {
  using Word = proof::Word;
  struct PublicationHeader {
    Word head;
  };
  struct CreditHeader {
    Word return_tail;
  };
  struct WriteHeader {
    Word command_tail;
  };
  struct CommandCell {
    OrderedWord<std::uint64_t> words[8];
  };
  using ReturnCell = OrderedWord<std::uint32_t>;
  struct DescriptorCell : Plain<shm::Descriptor> {
    DescriptorCell() : Plain(shm::Descriptor{}, true) {}
    using Plain::operator=;
  };
};

}  // namespace nvr::proof
