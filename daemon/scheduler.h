// Who is served next. Pure: no I/O, no clock. Disk thread only.
//
// Streams that want something stand in one of two queues, opens and reads; the queues take turns, and each is
// first in, first out. So no stream is starved by opens nor by other streams, and what is cancelled while it
// queues costs nothing. A stream that got its turn and wants more goes to the end of the queue. Streams
// without credit stand apart: they get no turn until a slot has come back, and hold up nobody.
#pragma once

#include <boost/intrusive/list.hpp>

namespace nvr::daemon {

// A stream as the scheduler knows it: in one queue at most, which it leaves by itself when it is destroyed.
class Schedulable
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  [[nodiscard]] bool is_queued() const { return is_linked(); }
};

class Scheduler {
 public:
  enum class Place { kOpen, kRead, kStarved };

  // Puts the stream at the end of a queue, out of the one it may stand in.
  void enqueue(Schedulable& stream, Place place) {
    remove(stream);
    queue(place).push_back(stream);
  }
  // Queued or not.
  static void remove(Schedulable& stream) {
    if (stream.is_linked()) stream.unlink();
  }

  // The stream whose turn it is, taken out of its queue; null when nobody can be served.
  [[nodiscard]] Schedulable* next() {
    for (int attempt = 0; attempt < 2; ++attempt) {
      turn_ = turn_ == Place::kOpen ? Place::kRead : Place::kOpen;
      if (queue(turn_).empty()) continue;
      Schedulable& stream = queue(turn_).front();
      queue(turn_).pop_front();
      return &stream;
    }
    return nullptr;
  }

  [[nodiscard]] bool has_queued() const { return !opens_.empty() || !reads_.empty(); }
  [[nodiscard]] bool has_starved() const { return !starved_.empty(); }
  // Calls visit(Schedulable&) for each stream without credit. visit may enqueue that stream elsewhere.
  template <class Visit>
  void for_each_starved(Visit&& visit) {
    for (auto it = starved_.begin(); it != starved_.end();) visit(*it++);
  }

 private:
  using Queue = boost::intrusive::list<Schedulable, boost::intrusive::constant_time_size<false>>;
  Queue& queue(Place place) {
    return place == Place::kOpen ? opens_ : place == Place::kRead ? reads_ : starved_;
  }

  Queue opens_;
  Queue reads_;
  Queue starved_;
  Place turn_ = Place::kRead;  // the last one given
};

}  // namespace nvr::daemon
