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
// W3 has read, in W2, an odd value for which it rang before; after the sleep the sleeper looks for work once
// more, and that look comes after this waker's W1. An edge of the eventfd and a readable socket do end the
// sleep. A futex wake that comes before S3 is lost, and the value compare makes up for it only where the work
// came after the sleeper's last look; but W1 may lie before S1 and W2 after it. So such a ring counts only if
// it woke somebody: otherwise the waker takes it back, and rings again for what it publishes next.
#pragma once

#include <atomic>
#include <cstdint>

#include "shm/protocol.h"

namespace nvr::shm {

// The sleeper's side; the only writer of its epoch word.
class Sleeper {
 public:
  explicit Sleeper(Word& epoch) : epoch_(&epoch) {}

  // S1; pairs with Waker::should_ring(). Calling it again while announced starts a new epoch, rung for anew.
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
  Word* epoch_;
  std::uint32_t value_ = 0;  // what the word holds; the daemon creates segments zeroed
};

// The waker's side; may be shared by threads (two may ring for one epoch, which is harmless). Believes
// nothing of the word but "differs from the odd value I last rang for", so a hostile sleeper gets at most one
// ring for each of its own stores that the waker happens to see, or for each publication.
class Waker {
 public:
  explicit Waker(const Word& epoch) : epoch_(&epoch) {}

  // W2 and W3's condition; call after publishing. True: ring now.
  [[nodiscard]] bool should_ring() {
    const std::uint32_t value = epoch_->load(std::memory_order_seq_cst);  // pairs with Sleeper::announce()
    const std::atomic_ref rung_for(rung_for_);
    if (!is_asleep(value) || value == rung_for.load(std::memory_order_relaxed)) return false;
    rung_for.store(value, std::memory_order_relaxed);
    return true;
  }
  // A hint: nobody comes before somebody has rung, and time has passed.
  [[nodiscard]] bool sees_sleeper() const { return is_asleep(epoch_->load(std::memory_order_relaxed)); }
  // The ring came to nobody and left no trace: it does not count.
  void take_back() { std::atomic_ref(rung_for_).store(0, std::memory_order_relaxed); }

 private:
  const Word* epoch_;
  std::uint32_t rung_for_ = 0;
};

}  // namespace nvr::shm
