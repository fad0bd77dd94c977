// Who is served next. Pure: no I/O, no clock; time is passed in. Disk thread only.
//
// Streams that want something stand in one of two queues: new ones, which want to be opened or their first
// read, and reads. The queues take turns, and each is first in, first out; so no stream is starved by opens
// nor by other streams, and what is cancelled while it queues costs nothing. A stream that wants more goes to
// the end of the queue when its turn is over, and to its front until then: what the kernel has read ahead of
// it is in memory, and the sooner it is used up the sooner the next readahead begins. A turn is short beside
// what a disk takes for one read, so a stream that waits for the disk has one read a turn. Streams without
// credit stand apart: they are not served until a slot has come back, and hold up nobody. On a spinning disk
// the queues are only for new streams and for what is in memory; the disk is shared by visits (visit_plan.h).
#pragma once

#include <algorithm>
#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <utility>

#include "shm/clock.h"

namespace nvr::daemon {

// A stream as the scheduler knows it: in one queue at most, which it leaves by itself when it is destroyed.
class Schedulable
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  Schedulable() = default;
  Schedulable(const Schedulable&) = delete;
  Schedulable& operator=(const Schedulable&) = delete;
  ~Schedulable() { leave(); }

  [[nodiscard]] bool is_queued() const { return is_linked(); }
  // Is what it reads in memory for good? From its next turn on.
  void set_hot(bool is_hot) { is_hot_ = is_hot; }

  // About 16 MiB of copying. Sixteen streams on a disk of 3.5 GB/s have 0.90 of its bandwidth with a turn of
  // one read each and 0.96 with these (nvr-bench cold).
  static constexpr std::uint64_t kTurnNs = 2 * shm::kMillisecond;
  // Of a hot stream, where nothing was read ahead that could go to waste: some windows, while the reader's
  // processor has the stream's lines. With turns of one read 64 streams have 6 % less (nvr-bench hot, medians
  // of five runs).
  static constexpr std::uint64_t kHotTurnNs = kTurnNs / 8;
  // So many streams have whole turns. Of more, each has as much less, and a round takes no longer: among a
  // thousand a turn is one read, and they are served alike (nvr-bench scale).
  static constexpr std::uint32_t kWholeTurns = 64;

 private:
  friend class Scheduler;
  void leave() {
    if (is_linked()) unlink();
    if (queued_reads_ != nullptr) --*std::exchange(queued_reads_, nullptr);
  }

  std::uint64_t turn_ends_ns_ = 0;
  std::uint32_t* queued_reads_ = nullptr;  // the scheduler's count, while it is counted there
  bool is_hot_ = false;
};

class Scheduler {
 public:
  enum class Place {
    kNew,
    kBegun,  // of the new ones one that has been opened: its first chunk is nearer than anybody else's
    kRead,
    kStarved,
  };

  // Puts the stream into a queue, out of the one it may stand in.
  void enqueue(Schedulable& stream, Place place, std::uint64_t now_ns) {
    remove(stream);
    if (place == Place::kRead) ++*(stream.queued_reads_ = &queued_reads_);
    if (place == Place::kBegun || (place == Place::kRead && now_ns < stream.turn_ends_ns_))
      queue(place).push_front(stream);
    else
      queue(place).push_back(stream);
  }
  // Queued or not.
  static void remove(Schedulable& stream) { stream.leave(); }
  // It reads something else from now on: its turn is over, and what it read said nothing of what comes.
  static void forget(Schedulable& stream) {
    remove(stream);
    stream.turn_ends_ns_ = 0;
    stream.is_hot_ = false;
  }

  // The stream whose turn it is, taken out of its queue; null when nobody can be served.
  [[nodiscard]] Schedulable* next(std::uint64_t now_ns) {
    const Place turn = last_ == Place::kNew ? Place::kRead : Place::kNew;
    last_ = queue(turn).empty() ? last_ : turn;
    return next_of(last_, now_ns);
  }
  // The same of one queue.
  [[nodiscard]] Schedulable* next_of(Place place, std::uint64_t now_ns) {
    if (queue(place).empty()) return nullptr;
    Schedulable& stream = queue(place).front();
    if (now_ns >= stream.turn_ends_ns_) stream.turn_ends_ns_ = now_ns + turn_of(stream);
    remove(stream);
    return &stream;
  }

  [[nodiscard]] bool has_queued() const { return !new_.empty() || !reads_.empty(); }
  // Of the new ones the first; null if there is none.
  [[nodiscard]] const Schedulable* first_new() const { return new_.empty() ? nullptr : &new_.front(); }
  [[nodiscard]] bool has_starved() const { return !starved_.empty(); }
  // Calls visit(Schedulable&) for each stream without credit. visit may enqueue or remove any stream, not
  // only that one: who breaks the protocol with one stream loses them all.
  template <class Visit>
  void for_each_starved(Visit&& visit) {
    Queue unseen;
    unseen.swap(starved_);
    while (!unseen.empty()) {
      Schedulable& stream = unseen.front();
      unseen.pop_front();
      starved_.push_back(stream);
      visit(stream);
    }
  }

 private:
  using Queue = boost::intrusive::list<Schedulable, boost::intrusive::constant_time_size<false>>;
  Queue& queue(Place place) {
    return place == Place::kRead ? reads_ : place == Place::kStarved ? starved_ : new_;
  }
  [[nodiscard]] std::uint64_t turn_of(const Schedulable& stream) const {
    const std::uint64_t whole = stream.is_hot_ ? Schedulable::kHotTurnNs : Schedulable::kTurnNs;
    return whole * Schedulable::kWholeTurns / std::max(queued_reads_, Schedulable::kWholeTurns);
  }

  Queue new_;
  Queue reads_;
  Queue starved_;
  std::uint32_t queued_reads_ = 0;
  Place last_ = Place::kRead;  // whose turn it was
};

}  // namespace nvr::daemon
