// Whom a spinning disk goes to next, and for how long. Pure: no I/O, no clock; time is passed in. Disk thread
// only.
//
// A visit is some MiB of one stream, read in a row, so that the way there is paid for. Who wants a visit is
// put down with the place on the disk, and everybody who wants one at the same time is swept in the order of
// the places, batch by batch; so each gets one visit a batch, and the way to the next is short. Two things go
// before that order:
//   1. A stream that is about to run dry.
//   2. Priority. The classes take turns by weight, 8 : 4 : 2 : 1, the more important first where it is a tie.
//      So a live stream waits for one visit of somebody less important at most, and even scrubbing is not
//      starved.
#pragma once

#include <array>
#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "nvr/recording.h"

namespace nvr::daemon {

using VisitHook =
    boost::intrusive::list_base_hook<boost::intrusive::tag<struct VisitTag>,
                                     boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

// A stream as the visits know it. It wants one visit at most; when it is destroyed, none.
class Visitor : public VisitHook {
 public:
  [[nodiscard]] bool wants_visit() const { return VisitHook::is_linked(); }

 private:
  friend class Visits;
  Priority priority_ = Priority::kPlayback;
  std::uint64_t position_ = 0;
  std::uint64_t deadline_ns_ = 0;
  std::uint64_t bytes_left_ = 0;
};

class Visits {
 public:
  enum class Order : std::uint8_t {
    kSweep,
    kFifo,  // as they came, to measure the other against
  };
  explicit Visits(Order order) : order_(order) {}

  struct Wish {
    Priority priority = Priority::kPlayback;
    std::uint64_t position = 0;              // on the disk, in any unit
    std::uint64_t deadline_ns = UINT64_MAX;  // when its reader runs dry, if that is known
    std::uint64_t bytes = 0;                 // how long the visit shall be
  };
  // The stream wants a visit. Replaces what it wanted before.
  void want(Visitor& visitor, const Wish& wish);
  // The visit is over, or not wanted any more.
  static void remove(Visitor& visitor) {
    if (visitor.wants_visit()) visitor.VisitHook::unlink();
  }

  // The stream of the visit that is under way, or else of the next; null if nobody wants one. `visit_ns`:
  // about how long one takes.
  [[nodiscard]] Visitor* next(std::uint64_t now_ns, std::uint64_t visit_ns);
  // The bytes that are left of its visit.
  [[nodiscard]] static std::uint64_t bytes_left(const Visitor& visitor) { return visitor.bytes_left_; }
  // So many bytes more have been asked for. The visit ends when all have been, or there are no more.
  static void advance(Visitor& visitor, std::uint64_t bytes, bool has_more);

  [[nodiscard]] bool empty() const;
  [[nodiscard]] std::uint64_t count() const { return count_; }  // of visits so far

 private:
  using Queue = boost::intrusive::list<Visitor, boost::intrusive::base_hook<VisitHook>,
                                       boost::intrusive::constant_time_size<false>>;
  struct Class {
    Queue batch;             // in the order of their places
    Queue waiting;           // for the next batch, as they came
    std::uint64_t time = 0;  // visits by weight: the class with the least is next
    [[nodiscard]] bool empty() const { return batch.empty() && waiting.empty(); }
  };

  [[nodiscard]] Visitor* choose(std::uint64_t now_ns, std::uint64_t visit_ns);
  [[nodiscard]] Visitor* most_urgent(std::uint64_t now_ns, std::uint64_t visit_ns);
  [[nodiscard]] Class* class_in_turn();

  Order order_;
  Queue current_;  // one at most
  std::array<Class, kPriorities> classes_;
  std::uint64_t time_ = 0;  // of the class that was visited last, then
  std::uint64_t count_ = 0;
};

}  // namespace nvr::daemon
