// Who is served next. Pure: no I/O, no clock; time is passed in. Disk thread only.
//
// Streams that want something stand in one of two queues: new ones, which want to be opened or their first
// read, and reads. The queues take turns. In each the users take turns, of each user its connections, and of
// each connection its streams, first in, first out; so no stream is starved by opens nor by other streams, no
// user by one with thousands of streams, and what is cancelled while it queues costs nothing. A stream that
// wants more goes to the end of the queue when its turn is over, and to its front until then: what the kernel
// has read ahead of it is in memory, and the sooner it is used up the sooner the next readahead begins. A
// turn is short beside what a disk takes for one read, so a stream that waits for the disk has one read a
// turn. Streams without credit stand apart: they are not served until a slot has come back, and hold up
// nobody. On a spinning disk the queues are only for new streams and for what is in memory; the disk is
// shared by visits (visit_plan.h).
#pragma once

#include <algorithm>
#include <array>
#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "shm/clock.h"

namespace nvr::daemon {

class Member;

// A stream as the scheduler knows it: in one queue at most, which it leaves by itself when it is destroyed.
class Schedulable
    : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  Schedulable() = default;
  Schedulable(const Schedulable&) = delete;
  Schedulable& operator=(const Schedulable&) = delete;
  ~Schedulable() { leave(); }

  [[nodiscard]] bool is_queued() const { return is_linked(); }
  // The connection that the stream belongs to, which outlives it. Streams without one share a member.
  void belongs_to(Member& member) { member_ = &member; }
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
    if (queued_ != nullptr) --*std::exchange(queued_, nullptr);
  }

  Member* member_ = nullptr;
  std::uint64_t turn_ends_ns_ = 0;
  std::uint32_t* queued_ = nullptr;  // the scheduler's count, while it is counted there
  bool is_hot_ = false;
};

// A connection as the scheduler knows it, and the user whose it is. It leaves when it is destroyed.
class Member {
 private:
  friend class Scheduler;
  using Hook = boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;
  template <class T>
  using List = boost::intrusive::list<T, boost::intrusive::constant_time_size<false>>;

  // Of one queue. An entry may be empty: it is taken out of line when its turn comes.
  struct Streams : Hook {
    List<Schedulable> list;
  };
  struct Connections : Hook {
    List<Streams> list;
  };
  static constexpr std::size_t kQueues = 2;
  using User = std::array<Connections, kQueues>;

  explicit Member(std::shared_ptr<User> user) : user_(std::move(user)) {}

  std::shared_ptr<User> user_;
  std::array<Streams, kQueues> streams_;
};

class Scheduler {
 public:
  enum class Place {
    kNew,
    kBegun,  // of the new ones one that has been opened: its first chunk is nearer than anybody else's
    kRead,
    kStarved,
  };

  // A connection of this user. It does not outlive the scheduler.
  [[nodiscard]] std::unique_ptr<Member> join(std::uint32_t uid) {
    std::erase_if(users_, [](const auto& user) { return user.second.expired(); });
    std::shared_ptr<Member::User> user = users_[uid].lock();
    if (!user) users_[uid] = user = std::make_shared<Member::User>();
    return std::unique_ptr<Member>(new Member(std::move(user)));
  }

  // Puts the stream into a queue, out of the one it may stand in.
  void enqueue(Schedulable& stream, Place place, std::uint64_t now_ns) {
    remove(stream);
    if (place == Place::kStarved) return starved_.push_back(stream);
    const std::size_t queue = queue_of(place);
    const bool is_first = place == Place::kBegun || (place == Place::kRead && now_ns < stream.turn_ends_ns_);
    Member& member = stream.member_ != nullptr ? *stream.member_ : *everybody_;
    Member::Streams& streams = member.streams_[queue];
    Member::Connections& connections = (*member.user_)[queue];
    ++*(stream.queued_ = &queued_[queue]);
    stand(streams.list, stream, is_first);
    stand(connections.list, streams, is_first);
    stand(users_in_[queue], connections, is_first);
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
    last_ = queued_[queue_of(turn)] == 0 ? last_ : turn;
    return next_of(last_, now_ns);
  }
  // The same of one queue.
  [[nodiscard]] Schedulable* next_of(Place place, std::uint64_t now_ns) {
    Schedulable* const stream = first_of(queue_of(place));
    if (stream == nullptr) return nullptr;
    if (now_ns >= stream->turn_ends_ns_) stream->turn_ends_ns_ = now_ns + turn_of(*stream);
    remove(*stream);
    // Its user's next turn is that of another connection, and comes after those of the other users.
    auto& users = users_in_[queue_of(place)];
    to_the_back(users.front().list);
    to_the_back(users);
    return stream;
  }

  [[nodiscard]] bool has_queued() const { return queued_[0] + queued_[1] > 0; }
  // Of the new ones the first; null if there is none.
  [[nodiscard]] const Schedulable* first_new() { return first_of(queue_of(Place::kNew)); }
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
  using Queue = Member::List<Schedulable>;
  static constexpr std::size_t queue_of(Place place) { return place == Place::kRead ? 1 : 0; }
  // An entry that stands in line keeps its place, unless it is to be the first.
  template <class List, class Entry>
  static void stand(List& list, Entry& entry, bool is_first) {
    if (entry.is_linked()) {
      if (!is_first) return;
      entry.unlink();
    }
    list.insert(is_first ? list.begin() : list.end(), entry);
  }
  template <class List>
  static void to_the_back(List& list) {
    list.splice(list.end(), list, list.begin());
  }
  // Without those that have nobody in line any more.
  [[nodiscard]] Schedulable* first_of(std::size_t queue) {
    for (auto& users = users_in_[queue]; !users.empty(); users.pop_front()) {
      for (auto& connections = users.front().list; !connections.empty(); connections.pop_front()) {
        auto& streams = connections.front().list;
        if (!streams.empty()) return &streams.front();
      }
    }
    return nullptr;
  }
  [[nodiscard]] std::uint64_t turn_of(const Schedulable& stream) const {
    const std::uint64_t whole = stream.is_hot_ ? Schedulable::kHotTurnNs : Schedulable::kTurnNs;
    return whole * Schedulable::kWholeTurns /
           std::max(queued_[queue_of(Place::kRead)], Schedulable::kWholeTurns);
  }

  std::array<Member::List<Member::Connections>, Member::kQueues> users_in_;
  std::array<std::uint32_t, Member::kQueues> queued_ = {};
  Queue starved_;
  std::map<std::uint32_t, std::weak_ptr<Member::User>> users_;
  std::unique_ptr<Member> everybody_ = join(UINT32_MAX);
  Place last_ = Place::kRead;  // whose turn it was
};

}  // namespace nvr::daemon
