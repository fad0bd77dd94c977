// The wake protocol: how a sleeper is never missed and hardly ever called. The same few lines serve all three
// sleepers: a stream's reader (futex), a client's event loop (a message on the socket), the disk thread
// (eventfd).
//
//   sleeper                                   waker
//   S1  announce(): epoch := odd  (seq_cst)   W1  publish work          (seq_cst store)
//   S2  look for work again       (seq_cst)   W2  is the epoch odd?     (seq_cst load)
//   S3  sleep, if there was none              W3  ring, if it is and it has not been rung for
//   S4  retire(): epoch := even
//
// In the one total order of seq_cst operations either S1 comes before W2 (the waker sees the odd value and
// rings) or W1 before S2 (the sleeper sees the work). Release and acquire would not do: a store may wait in
// the store buffer while the following load is served.
//
// One ring per odd value is enough, if it ends that sleep even when it comes before S3. A waker that skips
// W3 has read, in W2, an odd value that was rung for before; after the sleep the sleeper looks for work once
// more, and that look comes after this waker's W1. An edge of the eventfd and a readable socket do end the
// sleep. A futex wake that comes before S3 is lost, and the value compare makes up for it only where the work
// came after the sleeper's last look; but W1 may lie before S1 and W2 after it. So a ring counts only if it
// woke somebody: otherwise the waker rings again for what it publishes next.
//
// A waker records its ring after it has rung. One that recorded first could be descheduled in between, and
// the ring of every other thread that shares the Waker would be skipped meanwhile.
//
// tests/proof explores this code exhaustively.
#pragma once

#include <atomic>
#include <cstdint>

#include "shm/memory.h"
#include "shm/protocol.h"

namespace nvr::shm {

// The sleeper's side; the only writer of its epoch word.
template <class Memory>
class BasicSleeper {
 public:
  explicit BasicSleeper(typename Memory::Word& epoch) : epoch_(&epoch) {}

  // S1; pairs with Waker::ring_if_asleep(). Calling it again while announced starts a new epoch, rung for
  // anew.
  void announce() {
    value_ = (value_ + 1) | 1;
    epoch_->store(value_, std::memory_order_seq_cst);
  }
  // S4. seq_cst for the disk thread: what it looks at after it woke must not be read before this store is
  // out, or a client that skips a second ring for this epoch could go unseen.
  void retire() {
    if (!is_asleep(value_)) return;
    epoch_->store(++value_, std::memory_order_seq_cst);
  }

 private:
  typename Memory::Word* epoch_;
  std::uint32_t value_ = 0;  // what the word holds; the daemon creates segments zeroed
};

// S1 to S4. `for_each_sleeper(f)` calls f(sleeper) for every epoch word that this thread's sleep shows in;
// `look_again()` says whether there is work after all; `sleep()` waits for a ring.
template <class ForEachSleeper, class LookAgain, class Sleep>
void sleep_unless(ForEachSleeper&& for_each_sleeper, LookAgain&& look_again, Sleep&& sleep) {
  for_each_sleeper([](auto& sleeper) { sleeper.announce(); });
  if (!look_again()) sleep();
  for_each_sleeper([](auto& sleeper) { sleeper.retire(); });
}

// The waker's side; may be shared by threads (two may ring for one epoch, which is harmless). Believes
// nothing of the word but "differs from the odd value I last rang for", so a hostile sleeper gets at most one
// ring for each of its own stores that the waker happens to see, or for each publication.
template <class Memory>
class BasicWaker {
 public:
  explicit BasicWaker(const typename Memory::Word& epoch) : epoch_(&epoch) {}

  // W2 and W3; call after publishing. Calls `ring()` if the sleeper is asleep and has not been rung for.
  // `ring` says whether the ring ends the sleep: one that reached nobody and left no trace does not. Returns
  // whether it was called.
  template <class Ring>
  bool ring_if_asleep(Ring&& ring) {
    const std::uint32_t value = epoch_->load(std::memory_order_seq_cst);  // pairs with Sleeper::announce()
    if (!is_asleep(value) || value == rung_for_.load(std::memory_order_relaxed)) return false;
    if (ring()) rung_for_.store(value, std::memory_order_relaxed);  // after the ring, never before
    return true;
  }
  // A hint: nobody comes before somebody has rung, and time has passed.
  [[nodiscard]] bool sees_sleeper() const { return is_asleep(epoch_->load(std::memory_order_relaxed)); }

 private:
  const typename Memory::Word* epoch_;
  typename Memory::Word rung_for_{0};  // private to the waker's process
};

using Sleeper = BasicSleeper<SharedMemory>;
using Waker = BasicWaker<SharedMemory>;

}  // namespace nvr::shm
