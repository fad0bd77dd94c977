// A recording that is still being written, as one stream follows it (OPEN with kOpenFollow): how far it may
// be read, whether it is finished, and when to look again. Pure: the file's size and the time are passed in.
// Disk thread only.
//
// Chunk k of a stream is [begin + k * 64 KiB, ...) whoever reads it and whenever. So while the recording
// grows whole chunks are read, and what is left over once it is finished: when its reader says so (FINISH),
// when it has not grown for the time that OPEN gave, or where the range ends.
#pragma once

#include <algorithm>
#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "shm/clock.h"
#include "shm/protocol.h"

namespace nvr::daemon {

class Growth {
 public:
  // A stream that does not follow: nothing here grows.
  Growth() = default;
  // `end`: of the range, UINT64_MAX for one without. `size`: the file's, at least `begin`.
  Growth(std::uint64_t begin, std::uint64_t end, std::uint64_t size, std::uint64_t quiet_ms,
         std::uint64_t now_ns)
      : goes_on_(true),
        begin_(begin),
        end_(end),
        size_(size),
        quiet_ns_(quiet_ms > UINT64_MAX / shm::kMillisecond ? UINT64_MAX : quiet_ms * shm::kMillisecond),
        grew_ns_(now_ns) {
    look(size, now_ns);
  }

  // The reader has been told that nothing will be added any more: so says the next look().
  void finish() { finished_ = true; }
  // The file has `size` bytes now, no fewer than before.
  void look(std::uint64_t size, std::uint64_t now_ns) {
    if (size > size_) grew_ns_ = now_ns;
    size_ = size;
    if (finished_ || size_ >= end_ || now_ns - grew_ns_ >= quiet_ns_) goes_on_ = false;
  }

  // May there be more than readable_end()?
  [[nodiscard]] bool goes_on() const { return goes_on_; }
  [[nodiscard]] std::uint64_t readable_end() const {
    const std::uint64_t there = std::min(size_, end_);
    return goes_on_ ? there - (there - begin_) % shm::kSlotBytes : there;
  }

 private:
  bool goes_on_ = false;
  bool finished_ = false;
  std::uint64_t begin_ = 0;
  std::uint64_t end_ = 0;
  std::uint64_t size_ = 0;
  std::uint64_t quiet_ns_ = 0;
  std::uint64_t grew_ns_ = 0;
};

// A stream that has read all there was, as the watch knows it. Leaves it by itself when it is destroyed.
class Follower
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 private:
  friend class GrowthWatch;
  std::uint64_t due_ns_ = 0;  // of the next look, or of the last
};

// Who is to look when. No file is looked at more often than every kLookNs, however fast it grows.
class GrowthWatch {
 public:
  static constexpr std::uint64_t kLookNs = 250 * shm::kMillisecond;

  // `at_once`: it has waited long enough, in any case.
  void add(Follower& follower, std::uint64_t now_ns, bool at_once = false) {
    remove(follower);
    follower.due_ns_ = at_once ? now_ns : std::max(now_ns, follower.due_ns_ + kLookNs);
    auto place = waiting_.end();
    while (place != waiting_.begin() && std::prev(place)->due_ns_ > follower.due_ns_) --place;
    waiting_.insert(place, follower);
  }
  // Waiting or not.
  static void remove(Follower& follower) {
    if (follower.is_linked()) follower.unlink();
  }
  // It follows another file from now on, which nobody has looked at.
  static void forget(Follower& follower) {
    remove(follower);
    follower.due_ns_ = 0;
  }
  // One whose time has come, no longer waiting; null if there is none.
  [[nodiscard]] Follower* next(std::uint64_t now_ns) {
    if (waiting_.empty() || waiting_.front().due_ns_ > now_ns) return nullptr;
    Follower& follower = waiting_.front();
    waiting_.pop_front();
    return &follower;
  }
  // When the next one's time comes; 0: nobody waits.
  [[nodiscard]] std::uint64_t due_ns() const { return waiting_.empty() ? 0 : waiting_.front().due_ns_; }

 private:
  boost::intrusive::list<Follower, boost::intrusive::constant_time_size<false>> waiting_;  // by due_ns_
};

}  // namespace nvr::daemon
