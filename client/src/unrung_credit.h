// The slots of one channel that were returned without ringing for the daemon. Half a window at a time keeps
// the daemon asleep while the reader has enough to do. While the reader waits every slot is rung for: it may
// be the one that the daemon waits for. Any thread.
//
// A template over its memory for tests/proof, as shm/wake.h is.
#pragma once

#include <cstdint>

#include "shm/memory.h"

namespace nvr::internal {

// All of it is seq_cst. add() counts, then looks whether the reader waits; the reader says that it waits,
// then looks what was counted. One of the two sees the other, and rings.
template <class Memory>
class BasicUnrungCredit {
 public:
  // A slot was returned. True: ring now, if take() says so too.
  [[nodiscard]] bool add(std::uint32_t threshold) {
    const std::uint32_t returned = returned_.fetch_add(1) + 1;
    return returned >= threshold || is_reader_waiting_.load() != 0;
  }
  // True: there are slots to ring for, and from now on they count as rung for.
  [[nodiscard]] bool take() {
    if (returned_.load() == 0) return false;
    returned_.store(0);
    return true;
  }
  // The reader found nothing and will not look again by itself. It calls take() after that.
  void set_reader_waiting(bool waits) { is_reader_waiting_.store(waits ? 1 : 0); }

 private:
  typename Memory::Word returned_{0};
  typename Memory::Word is_reader_waiting_{0};
};

using UnrungCredit = BasicUnrungCredit<shm::SharedMemory>;

}  // namespace nvr::internal
