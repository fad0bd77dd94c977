// The daemon's pure parts: who is served next, who may connect, when to warn, what crosses between the
// threads.
#include <errno.h>

#include <catch2/catch.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "daemon/admission.h"
#include "daemon/circuit_breaker.h"
#include "daemon/device.h"
#include "daemon/in_flight.h"
#include "daemon/mailbox.h"
#include "daemon/scheduler.h"
#include "daemon/statistics.h"
#include "daemon/watchdog.h"
#include "shm/clock.h"

namespace nvr::daemon {
namespace {

struct Named : Schedulable {
  explicit Named(int n) : name(n) {}
  int name;
};

std::vector<int> all_turns(Scheduler& scheduler) {
  std::vector<int> turns;
  while (auto* const next = scheduler.next(0)) turns.push_back(static_cast<Named*>(next)->name);
  return turns;
}

TEST_CASE("scheduler: first in, first out, opens and reads in turns, the starved not at all") {
  Scheduler scheduler;
  std::deque<Named> streams;
  for (int i = 0; i < 7; ++i) streams.emplace_back(i);
  for (int i : {0, 1, 2}) scheduler.enqueue(streams[static_cast<std::size_t>(i)], Scheduler::Place::kRead, 0);
  for (int i : {3, 4}) scheduler.enqueue(streams[static_cast<std::size_t>(i)], Scheduler::Place::kNew, 0);
  for (int i : {5, 6}) scheduler.enqueue(streams[static_cast<std::size_t>(i)], Scheduler::Place::kStarved, 0);
  CHECK(all_turns(scheduler) == std::vector<int>{3, 0, 4, 1, 2});
  CHECK(scheduler.has_starved());
  scheduler.for_each_starved(
      [&](Schedulable& stream) { scheduler.enqueue(stream, Scheduler::Place::kRead, 0); });
  CHECK_FALSE(scheduler.has_starved());
  CHECK(all_turns(scheduler) == std::vector<int>{5, 6});
}

TEST_CASE("scheduler: a stream that reads something else begins as one that has read nothing") {
  Scheduler scheduler;
  Named again(1);
  Named other(2);
  again.set_hot(true);
  scheduler.enqueue(again, Scheduler::Place::kNew, 0);
  CHECK(scheduler.next(0) == &again);  // its turn has begun
  Scheduler::forget(again);
  scheduler.enqueue(other, Scheduler::Place::kRead, 1);
  scheduler.enqueue(again, Scheduler::Place::kRead, 1);
  CHECK(scheduler.next(1) == &other);
  CHECK(scheduler.next(1) == &again);
  scheduler.enqueue(other, Scheduler::Place::kRead, Schedulable::kHotTurnNs + 1);
  scheduler.enqueue(again, Scheduler::Place::kRead, Schedulable::kHotTurnNs + 1);
  CHECK(scheduler.next(Schedulable::kHotTurnNs + 1) == &again);  // a whole turn, not that of a hot stream
}

TEST_CASE("scheduler: a stream that is removed or destroyed gets no turn") {
  Scheduler scheduler;
  auto gone = std::make_unique<Named>(1);
  Named removed(2);
  Named stays(3);
  for (Schedulable* const stream : {static_cast<Schedulable*>(gone.get()),
                                    static_cast<Schedulable*>(&removed), static_cast<Schedulable*>(&stays)})
    scheduler.enqueue(*stream, Scheduler::Place::kRead, 0);
  gone.reset();
  Scheduler::remove(removed);
  Scheduler::remove(removed);
  CHECK(all_turns(scheduler) == std::vector<int>{3});
}

// The turns that some streams get which always want more, when each read takes so long.
std::vector<int> turns_of(int count, std::uint64_t read_ns, std::size_t turns, bool are_hot = false) {
  Scheduler scheduler;
  std::deque<Named> streams;
  for (int name = 0; name < count; ++name) {
    streams.emplace_back(name).set_hot(are_hot);
    scheduler.enqueue(streams.back(), Scheduler::Place::kRead, 0);
  }
  std::vector<int> names;
  for (std::uint64_t i = 0; i < turns; ++i) {
    auto* const next = static_cast<Named*>(scheduler.next(i * read_ns));
    names.push_back(next->name);
    scheduler.enqueue(*next, Scheduler::Place::kRead, (i + 1) * read_ns);
  }
  return names;
}

TEST_CASE("scheduler: streams that go on stand in line again behind all others when their turn is over") {
  CHECK(turns_of(2, Schedulable::kTurnNs, 6) == std::vector<int>{0, 1, 0, 1, 0, 1});
  CHECK(turns_of(2, Schedulable::kTurnNs / 2, 6) == std::vector<int>{0, 0, 1, 1, 0, 0});
}

TEST_CASE("scheduler: what is in memory for good has short turns") {
  CHECK(turns_of(2, Schedulable::kTurnNs / 2, 6, true) == std::vector<int>{0, 1, 0, 1, 0, 1});
  CHECK(turns_of(2, Schedulable::kHotTurnNs / 2, 6, true) == std::vector<int>{0, 0, 1, 1, 0, 0});
}

TEST_CASE("scheduler: among many streams turns are short, so that each has one soon") {
  constexpr int kMany = 1024;
  constexpr int kTimesMore = kMany / Schedulable::kWholeTurns;
  for (const bool are_hot : {false, true}) {
    const std::uint64_t whole = are_hot ? Schedulable::kHotTurnNs : Schedulable::kTurnNs;
    const std::vector<int> turns = turns_of(kMany, whole / kTimesMore, 2 * kMany, are_hot);
    for (int turn = 0; turn < 2 * kMany; ++turn) {
      CAPTURE(are_hot, turn);
      REQUIRE(turns[static_cast<std::size_t>(turn)] == turn % kMany);
    }
  }
}

TEST_CASE("scheduler: only those that stand in line make turns shorter") {
  Scheduler scheduler;
  std::deque<Named> streams;
  for (int name = 0; name < 1000; ++name) {
    streams.emplace_back(name).set_hot(true);
    scheduler.enqueue(streams.back(), Scheduler::Place::kRead, 0);
  }
  for (int i = 0; i < 500; ++i) Scheduler::remove(streams[static_cast<std::size_t>(i)]);
  for (int i = 500; i < 998; ++i)
    scheduler.enqueue(streams[static_cast<std::size_t>(i)], Scheduler::Place::kStarved, 0);
  for (int i = 0; i < 500; ++i) streams.pop_front();
  Schedulable* const first = scheduler.next(0);
  scheduler.enqueue(*first, Scheduler::Place::kRead, Schedulable::kHotTurnNs - 1);
  CHECK(scheduler.next(Schedulable::kHotTurnNs - 1) == first);
  scheduler.enqueue(*first, Scheduler::Place::kRead, Schedulable::kHotTurnNs);
  CHECK(scheduler.next(Schedulable::kHotTurnNs) == &streams.back());
}

TEST_CASE("scheduler: a new stream is served between the reads of a turn") {
  Scheduler scheduler;
  Named reading(1);
  Named fresh(2);
  scheduler.enqueue(reading, Scheduler::Place::kRead, 0);
  CHECK(scheduler.next(0) == &reading);
  scheduler.enqueue(reading, Scheduler::Place::kRead, 1);
  scheduler.enqueue(fresh, Scheduler::Place::kNew, 1);
  CHECK(scheduler.next(1) == &fresh);
  CHECK(scheduler.next(1) == &reading);
}

TEST_CASE("scheduler: of the new streams those go first that have begun") {
  Scheduler scheduler;
  Named a(1);
  Named b(2);
  scheduler.enqueue(a, Scheduler::Place::kNew, 0);
  CHECK(scheduler.first_new() == &a);
  scheduler.enqueue(b, Scheduler::Place::kBegun, 0);
  CHECK(scheduler.first_new() == &b);
  CHECK(all_turns(scheduler) == std::vector<int>{2, 1});
  CHECK(scheduler.first_new() == nullptr);
}

TEST_CASE("scheduler: users take turns, then a user's connections, then a connection's streams") {
  Scheduler scheduler;
  const auto greedy = scheduler.join(1000);
  const auto greedy_too = scheduler.join(1000);
  const auto modest = scheduler.join(1001);
  std::deque<Named> streams;
  const auto add = [&](int name, Member& member, Scheduler::Place place) {
    streams.emplace_back(name).belongs_to(member);
    scheduler.enqueue(streams.back(), place, 0);
  };
  for (const auto place : {Scheduler::Place::kRead, Scheduler::Place::kNew}) {
    for (int name = 10; name < 14; ++name) add(name, *greedy, place);
    for (int name = 20; name < 22; ++name) add(name, *greedy_too, place);
    for (int name = 30; name < 32; ++name) add(name, *modest, place);
    std::vector<int> turns;
    while (auto* const next = scheduler.next_of(place, 0)) turns.push_back(static_cast<Named*>(next)->name);
    CHECK(turns == std::vector<int>{10, 30, 20, 31, 11, 21, 12, 13});
  }
  CHECK_FALSE(scheduler.has_queued());
}

TEST_CASE("scheduler: a stream whose turn goes on comes before other users, until the turn is over") {
  Scheduler scheduler;
  const auto one = scheduler.join(1000);
  const auto other = scheduler.join(1001);
  Named a(1);
  Named b(2);
  a.belongs_to(*one);
  b.belongs_to(*other);
  scheduler.enqueue(a, Scheduler::Place::kRead, 0);
  scheduler.enqueue(b, Scheduler::Place::kRead, 0);
  CHECK(scheduler.next(0) == &a);
  scheduler.enqueue(a, Scheduler::Place::kRead, Schedulable::kTurnNs - 1);
  CHECK(scheduler.next(Schedulable::kTurnNs - 1) == &a);
  scheduler.enqueue(a, Scheduler::Place::kRead, Schedulable::kTurnNs);
  CHECK(scheduler.next(Schedulable::kTurnNs) == &b);
}

TEST_CASE("scheduler: a connection that leaves takes its place along, and its user the last one's") {
  Scheduler scheduler;
  const auto stays = scheduler.join(1000);
  auto leaves = scheduler.join(1001);
  {
    Named a(1);
    a.belongs_to(*leaves);
    scheduler.enqueue(a, Scheduler::Place::kRead, 0);
  }
  Named b(2);
  b.belongs_to(*stays);
  scheduler.enqueue(b, Scheduler::Place::kRead, 0);
  leaves.reset();
  CHECK(scheduler.next(0) == &b);
  CHECK(scheduler.next(0) == nullptr);
  const auto again = scheduler.join(1001);
  b.belongs_to(*again);
  scheduler.enqueue(b, Scheduler::Place::kNew, 0);
  CHECK(scheduler.first_new() == &b);
  CHECK(scheduler.next(0) == &b);
}

Admission make_admission() {
  return {{.max_clients = 3,
           .max_clients_per_uid = 2,
           .connects_per_second = 100,
           .client_memory_bytes = 64 << 20,
           .total_memory_bytes = 100 << 20},
          1000,
          {1001}};
}

TEST_CASE("admission: own uid, root and the list may connect") {
  const Admission admission = make_admission();
  CHECK(admission.check_uid(0).has_value());
  CHECK(admission.check_uid(1000).has_value());
  CHECK(admission.check_uid(1001).has_value());
  const auto refused = admission.check_uid(1002);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::kPermissionDenied);
  CHECK(refused.error().message.find("--allow-uid 1002") != std::string::npos);
}

TEST_CASE("admission: every bound holds, names itself, and counts nothing when it refuses") {
  Admission admission = make_admission();
  CHECK(admission.admit_client(1000, 0, 32).error().code == Code::kInvalidArgument);
  CHECK(admission.admit_client(1000, 1, 3).error().code == Code::kInvalidArgument);
  CHECK(admission.admit_client(1000, 64, 64).error().message.find("--client-memory") != std::string::npos);
  REQUIRE(admission.admit_client(1000, 1, 2).has_value());
  REQUIRE(admission.admit_client(1000, 1, 2).has_value());
  CHECK(admission.admit_client(1000, 1, 2).error().message.find("--max-clients-per-uid") !=
        std::string::npos);
  REQUIRE(admission.admit_client(0, 1, 2).has_value());
  CHECK(admission.admit_client(0, 1, 2).error().message.find("--max-clients") != std::string::npos);
  CHECK(admission.clients() == 3);
  const std::uint64_t bytes = shm::Geometry{1, 2}.read_bytes() + shm::Geometry{1, 2}.write_bytes();
  CHECK(admission.memory_bytes() == 3 * bytes);
  for (std::uint32_t uid : {1000u, 1000u, 0u}) {
    admission.release_client(uid);
    CHECK(admission.memory_bytes() > 0);
    admission.release_memory(uid, bytes);
  }
  CHECK(admission.clients() == 0);
  CHECK(admission.memory_bytes() == 0);
}

TEST_CASE("admission: memory that a client keeps counts against it, and one uid cannot have all") {
  Admission admission = make_admission();
  const std::uint64_t bytes =
      shm::Geometry{16, 32}.read_bytes() + shm::Geometry{16, 32}.write_bytes();  // 32 MiB
  REQUIRE(admission.admit_client(1001, 16, 32).has_value());
  admission.release_client(1001);  // ended, but the memory is still mapped
  const auto refused = admission.admit_client(1001, 16, 32);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::kResourceExhausted);
  CHECK(admission.admit_client(1000, 16, 32).has_value());
  admission.release_memory(1001, bytes);
  CHECK(admission.admit_client(1001, 16, 32).has_value());
}

TEST_CASE("admission: a user keeps the memory of as many ended connections as it may have at a time") {
  Admission admission = make_admission();  // two for a user
  const std::uint64_t bytes = shm::Geometry{1, 2}.read_bytes() + shm::Geometry{1, 2}.write_bytes();
  for (int i = 0; i < 2; ++i) {
    REQUIRE(admission.admit_client(1001, 1, 2));
    admission.release_client(1001);
  }
  const auto refused = admission.admit_client(1001, 1, 2);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::kResourceExhausted);
  CHECK(refused.error().message.find("uid 1001 keeps the memory of 2 connections") == 0);
  CHECK(refused.error().message.find("--max-clients-per-uid") != std::string::npos);
  CHECK(admission.admit_client(1000, 1, 2));  // another
  admission.release_memory(1001, bytes);
  CHECK(admission.admit_client(1001, 1, 2));
  admission.release_client(1001);
  for (int i = 0; i < 2; ++i) admission.release_memory(1001, bytes);
  admission.release_client(1000);
  admission.release_memory(1000, bytes);
  CHECK(admission.memory_bytes() == 0);
}

TEST_CASE("admission: what one uid may have is also bounded by what all have together") {
  Admission admission({.max_clients = 9,
                       .max_clients_per_uid = 9,
                       .client_memory_bytes = 64 << 20,
                       .total_memory_bytes = 90 << 20},
                      1000, {1001});
  REQUIRE(admission.admit_client(0, 16, 32).has_value());  // 32 MiB each
  REQUIRE(admission.admit_client(1000, 16, 32).has_value());
  const std::uint64_t taken = admission.memory_bytes();
  CHECK(admission.admit_client(1001, 16, 32).error().code == Code::kResourceExhausted);
  CHECK(admission.admit_client(0, 16, 32).error().code == Code::kResourceExhausted);
  CHECK(admission.memory_bytes() == taken);
  CHECK(admission.clients() == 2);
  CHECK(admission.admit_client(1001, 8, 32).has_value());
}

// Of handshakes and of control connections alike.
struct Places {
  std::function<Result<void>(std::uint32_t uid)> admit;
  std::function<void(std::uint32_t uid)> release;
  std::uint32_t count = 0;

  std::uint32_t take_all(std::uint32_t uid) const {
    std::uint32_t taken = 0;
    while (taken <= count && admit(uid)) ++taken;
    return taken;
  }
};

TEST_CASE("admission: a user has a quarter of the places, and some are kept for root") {
  Admission admission = make_admission();
  const Places handshakes{.admit = [&](auto uid) { return admission.admit_handshake(uid); },
                          .release = [&](auto uid) { admission.release_handshake(uid); },
                          .count = kMaxHandshakes};
  const Places controls{.admit = [&](auto uid) { return admission.admit_control(uid); },
                        .release = [&](auto uid) { admission.release_control(uid); },
                        .count = kMaxControlConnections};
  for (const Places& places : {handshakes, controls}) {
    const std::uint32_t quarter = places.count / 4;
    for (const std::uint32_t uid : {1001u, 1002u, 1003u}) {
      CHECK(places.take_all(uid) == quarter);
      const auto refused = places.admit(uid);
      CHECK(refused.error().code == Code::kResourceExhausted);
      CHECK(refused.error().message.find("uid " + std::to_string(uid) + " has") == 0);
    }
    CHECK(places.take_all(1004) == 0);
    CHECK(places.take_all(1000) == quarter - places.count / 8);
    CHECK(places.take_all(0) == places.count / 8);
    CHECK(places.admit(0).error().code == Code::kResourceExhausted);
    places.release(1002);
    CHECK(places.take_all(1004) == 0);  // of what is kept
    CHECK(places.take_all(0) == 1);
    for (std::uint32_t i = 0; i < quarter; ++i) places.release(1001);
    CHECK(places.take_all(1004) == 0);
    for (int i = 0; i < 2; ++i) places.release(0);
    CHECK(places.take_all(1004) == 2);
  }
}

TEST_CASE("descriptors: a user has half, all users seven eighths, root and the daemon's own user all") {
  using Verdict = DescriptorBudget::Verdict;
  DescriptorBudget budget({.most = 800, .suffices = false});
  auto& one = budget.share_of(1001, false);
  auto& other = budget.share_of(1002, false);
  auto& root = budget.share_of(0, true);
  CHECK(&budget.share_of(1001, false) == &one);
  CHECK(one.take(400) == Verdict::kTaken);
  CHECK(one.take(1) == Verdict::kUserHasAll);
  CHECK(one.most(Verdict::kUserHasAll) == 400);
  CHECK(other.take(301) == Verdict::kNoneLeft);
  CHECK(other.most(Verdict::kNoneLeft) == 700);
  CHECK(other.in_use() == 0);
  CHECK(other.take(300) == Verdict::kTaken);
  CHECK(other.take(1) == Verdict::kNoneLeft);
  CHECK(root.take(101) == Verdict::kNoneLeft);
  CHECK(root.most(Verdict::kNoneLeft) == 800);
  CHECK(root.take(100) == Verdict::kTaken);
  CHECK(budget.in_use() == 800);
  one.give_back(400);
  CHECK(other.take(100) == Verdict::kTaken);
  CHECK(budget.in_use() == 500);
}

TEST_CASE(
    "descriptors: where they suffice for all clients no user is held back, and with few one can connect") {
  using Verdict = DescriptorBudget::Verdict;
  DescriptorBudget wide({.most = 800, .suffices = true});
  CHECK(wide.share_of(1001, false).take(800) == Verdict::kTaken);
  DescriptorBudget narrow({.most = 9, .suffices = false});
  CHECK(narrow.share_of(1001, false).take(DescriptorBudget::kOfConnection) == Verdict::kTaken);
}

TEST_CASE("admission: a connection counts with its descriptors, and those of its memory until that is gone") {
  Admission admission = make_admission();
  admission.bound_descriptors(
      {.of_clients = {.most = 2 * DescriptorBudget::kOfConnection, .suffices = true}});
  const std::uint64_t bytes = shm::Geometry{1, 2}.read_bytes() + shm::Geometry{1, 2}.write_bytes();
  REQUIRE(admission.admit_client(1000, 1, 2));
  REQUIRE(admission.admit_client(1001, 1, 2));
  const auto refused = admission.admit_client(0, 1, 2);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::kResourceExhausted);
  CHECK(refused.error().sys_errno == EMFILE);  // for the remedy
  CHECK(admission.clients() == 2);
  admission.release_client(1000);
  CHECK_FALSE(admission.admit_client(0, 1, 2));
  admission.release_memory(1000, bytes);
  CHECK(admission.admit_client(0, 1, 2));
}

TEST_CASE("admission: of a single place everybody has a chance") {
  for (const std::uint32_t uid : {0u, 1000u, 1001u}) {
    Admission admission({.max_handshakes = 1, .max_controls = 1}, 1000, {1001});
    CHECK(admission.admit_handshake(uid).has_value());
    CHECK_FALSE(admission.admit_handshake(uid).has_value());
    CHECK(admission.admit_control(uid).has_value());
    CHECK_FALSE(admission.admit_control(uid).has_value());
  }
}

shm::OldestOperation reading_since(std::uint64_t since_ns) {
  return {.operation = shm::DiskOperation::kRead, .since_ns = since_ns, .recording = 1, .offset = 0};
}

TEST_CASE("admission: a user may connect so often at once, and so often in the long run, root as it likes") {
  Admission admission = make_admission();  // two clients for a user
  const std::uint64_t start = 100 * shm::kSecond;
  const auto connects_at = [&](std::uint64_t now_ns) {
    int count = 0;
    while (count < 1000 && admission.check_rate(1001, now_ns)) ++count;
    return count;
  };
  CHECK(connects_at(start) == 64 + 2 * 2);
  CHECK(admission.check_rate(1001, start).error().code == Code::kResourceExhausted);
  CHECK(connects_at(start + shm::kSecond / 100) == 1);
  CHECK(connects_at(start + 10 * shm::kSecond) == 64 + 2 * 2);
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(admission.check_rate(0, start).has_value());
    REQUIRE(admission.check_rate(1000, start).has_value());  // the daemon's own
  }
}

TEST_CASE("watchdog: warns at the limit and whenever it has doubled, once per episode") {
  Watchdog watchdog(shm::kSecond);
  const std::uint64_t start = 100 * shm::kSecond;
  std::vector<std::uint64_t> warned_at_s;
  for (std::uint64_t tenths = 0; tenths <= 200; ++tenths) {
    const std::uint64_t now = start + tenths * shm::kSecond / 10;
    // After 10 s another operation, 1.5 s younger, is the oldest: the same episode.
    const std::uint64_t since = tenths < 100 ? start : start + 3 * shm::kSecond / 2;
    if (watchdog.should_warn(reading_since(since), now)) warned_at_s.push_back((now - start) / shm::kSecond);
  }
  CHECK(warned_at_s == std::vector<std::uint64_t>{1, 2, 4, 8, 16});
}

TEST_CASE("watchdog: a disk that answers is not warned of, and the next episode is a new one") {
  Watchdog watchdog(shm::kSecond);
  std::uint64_t now = 100 * shm::kSecond;
  CHECK_FALSE(watchdog.should_warn({}, now));
  CHECK_FALSE(watchdog.should_warn(reading_since(now), now + shm::kSecond - 1));
  CHECK(watchdog.should_warn(reading_since(now), now + shm::kSecond));
  CHECK_FALSE(watchdog.should_warn(reading_since(now), now + shm::kSecond + 1));
  CHECK_FALSE(watchdog.should_warn({}, now + 2 * shm::kSecond));
  now += 10 * shm::kSecond;
  CHECK(watchdog.should_warn(reading_since(now), now + shm::kSecond));
}

TEST_CASE("in flight: tells the oldest and how many are older than a time, and counts no free entry") {
  InFlight table(4);
  CHECK(table.oldest().operation == shm::DiskOperation::kNone);
  CHECK(table.count_older_than(100) == 0);
  table.begin(2, shm::DiskOperation::kRead, 7, 65536, 50);
  table.begin(0, shm::DiskOperation::kOpen, 8, 0, 40);
  table.begin(1, shm::DiskOperation::kRead, 9, 0, 60);
  CHECK(table.oldest().recording == 8);
  CHECK(table.count() == 3);
  CHECK(table.count_older_than(50) == 1);
  CHECK(table.count_older_than(51) == 2);
  table.end(0);
  CHECK(table.oldest() == shm::OldestOperation{shm::DiskOperation::kRead, 50, 7, 65536});
  CHECK(table.count() == 2);
}

TEST_CASE("watchdog: an operation that is stuck is one thing, and a silent disk another") {
  const std::uint64_t start = 100 * shm::kSecond;
  const auto silence = [&](std::uint64_t answered_ns, std::uint64_t now_ns) {
    return find_stuck(reading_since(start), answered_ns, shm::kSecond, now_ns).silent_ns;
  };
  CHECK(find_stuck(reading_since(start), 0, shm::kSecond, start + shm::kSecond - 1) ==
        shm::OldestOperation{});
  CHECK(find_stuck({}, 0, 0, start) == shm::OldestOperation{});
  const std::uint64_t now_ns = start + 60 * shm::kSecond;
  CHECK(find_stuck(reading_since(start), 0, shm::kSecond, now_ns).stuck_ns == 60 * shm::kSecond);
  CHECK(silence(0, now_ns) == 60 * shm::kSecond);  // nothing was answered since, or ever
  CHECK(silence(start - shm::kSecond, now_ns) == 60 * shm::kSecond);
  CHECK(silence(now_ns - 3 * shm::kSecond, now_ns) == 3 * shm::kSecond);
  CHECK(silence(now_ns + 1, now_ns) == 0);
  const auto told = [&](std::uint64_t answered_ns) {
    return answers_beside(find_stuck(reading_since(start), answered_ns, 0, now_ns));
  };
  CHECK(told(0) == "nothing else was answered for 60.0 s");
  CHECK(told(now_ns - shm::kSecond) == "nothing else was answered for 1.0 s");
  CHECK(told(now_ns - shm::kSecond / 2) == "others were answered 0.5 s ago");
}

TEST_CASE("circuit breaker: refuses when nothing has been answered for so long, until something is") {
  CircuitBreaker breaker(5 * shm::kSecond);
  const std::uint64_t start = 100 * shm::kSecond;
  const auto update = [&](const shm::OldestOperation& oldest, std::uint64_t answered_ns,
                          std::uint64_t now_ns) {
    return breaker.update(find_stuck(oldest, answered_ns, 0, now_ns));
  };
  CHECK_FALSE(update({}, 0, start + 100 * shm::kSecond));  // nothing is asked of the disk
  CHECK_FALSE(update(reading_since(start), 0, start + 5 * shm::kSecond - 1));
  CHECK_FALSE(breaker.refuses());
  CHECK(update(reading_since(start), 0, start + 5 * shm::kSecond));
  CHECK(breaker.refuses());
  CHECK_FALSE(update(reading_since(start), 0, start + 60 * shm::kSecond));  // no news
  // Something was answered, though what is stuck still is.
  CHECK(update(reading_since(start), start + 60 * shm::kSecond, start + 61 * shm::kSecond));
  CHECK_FALSE(breaker.refuses());
  CHECK(update(reading_since(start), start + 60 * shm::kSecond, start + 65 * shm::kSecond));
  CHECK(breaker.refuses());
  CHECK(update({}, start + 60 * shm::kSecond, start + 66 * shm::kSecond));  // it has come
  CHECK_FALSE(breaker.refuses());
  // An answer, and an operation, that are younger than the look at the clock.
  CHECK_FALSE(update(reading_since(start + 1), start + 2, start));
}

TEST_CASE("circuit breaker: without patience given nothing is refused") {
  CircuitBreaker breaker(0);
  CHECK_FALSE(breaker.update(find_stuck(reading_since(1), 0, 0, 1000 * shm::kSecond)));
  CHECK_FALSE(breaker.refuses());
}

TEST_CASE("device: a spinning disk whose reads are cut into small pieces gets the command that mends it") {
  Device device = {.rotational = true, .known = true, .request_bytes = 128 << 10, .queue = "/sys/x/queue/"};
  CHECK(advice_for(device).find("echo 1024 > /sys/x/queue/read_ahead_kb") != std::string::npos);
  device.request_bytes = 1 << 20;
  CHECK(advice_for(device).empty());
  device.request_bytes = 128 << 10;
  device.rotational = false;
  CHECK(advice_for(device).empty());
}

TEST_CASE("mailbox: keeps order between two threads, and says when it is full") {
  Mailbox<int> mailbox(4);
  for (int i = 0; i < 4; ++i) REQUIRE(mailbox.put(i));
  CHECK_FALSE(mailbox.put(4));
  for (int i = 0; i < 4; ++i) CHECK(mailbox.take() == i);
  CHECK_FALSE(mailbox.take().has_value());

  constexpr int kCount = 20'000;
  std::thread producer([&] {
    for (int i = 0; i < kCount;) {
      if (mailbox.put(i))
        ++i;
      else
        std::this_thread::yield();
    }
  });
  int wrong = 0;
  for (int expected = 0; expected < kCount;) {
    const auto message = mailbox.take();
    if (!message) {
      std::this_thread::yield();
      continue;
    }
    wrong += *message == expected++ ? 0 : 1;
  }
  producer.join();
  CHECK(wrong == 0);
}

TEST_CASE("histogram: every duration is in one bucket, below its bound") {
  Histogram histogram;
  const std::vector<std::uint64_t> durations_us = {0, 1, 2, 3, 4, 1000, 1'000'000, std::uint64_t{1} << 50};
  for (const std::uint64_t us : durations_us) histogram.record_ns(us * 1000);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < Histogram::kBuckets; ++i) count += histogram.bucket(i);
  CHECK(count == durations_us.size());
  CHECK(histogram.bucket(0) == 1);   // less than 1 us
  CHECK(histogram.bucket(1) == 1);   // 1
  CHECK(histogram.bucket(2) == 2);   // 2, 3
  CHECK(histogram.bucket(10) == 1);  // 1000 < 1024
  CHECK(Histogram::upper_bound_us(10) == 1024);
}

}  // namespace
}  // namespace nvr::daemon
