// The wake protocol: nobody who sleeps is missed, and nobody is rung twice for one sleep.
#include "shm/wake.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <thread>

#include "shm/clock.h"
#include "shm/futex.h"

namespace nvr::shm {
namespace {

constexpr auto kCounts = [] { return true; };
constexpr auto kReachesNobody = [] { return false; };

TEST_CASE("wake: a waker rings once for each sleep, and not at all for one who is awake") {
  Word epoch = 0;
  Sleeper sleeper(epoch);
  Waker waker(epoch);
  CHECK_FALSE(waker.ring_if_asleep(kCounts));
  for (int sleep = 0; sleep < 5; ++sleep) {
    sleeper.announce();
    CHECK(waker.ring_if_asleep(kCounts));
    CHECK_FALSE(waker.ring_if_asleep(kCounts));
    sleeper.announce();  // without retiring: a new sleep
    CHECK(waker.ring_if_asleep(kCounts));
    sleeper.retire();
    CHECK_FALSE(waker.ring_if_asleep(kCounts));
  }
}

TEST_CASE("wake: two threads that ring at the same time both ring: the ring is recorded after it") {
  Word epoch = 0;
  Sleeper sleeper(epoch);
  Waker waker(epoch);
  sleeper.announce();
  bool other_rang = false;
  CHECK(waker.ring_if_asleep([&] {
    other_rang = waker.ring_if_asleep(kCounts);
    return true;
  }));
  CHECK(other_rang);
  CHECK_FALSE(waker.ring_if_asleep(kCounts));
}

TEST_CASE("wake: the sleeper looks again after it has announced, and sleeps only if there is nothing") {
  Word epoch = 0;
  Sleeper sleeper(epoch);
  const auto for_each_sleeper = [&](auto&& call) { call(sleeper); };
  for (const bool is_work_there : {false, true}) {
    int looks = 0;
    int sleeps = 0;
    sleep_unless(
        for_each_sleeper,
        [&] {
          ++looks;
          CHECK(is_asleep(epoch.load()));
          return is_work_there;
        },
        [&] { ++sleeps; });
    CHECK(looks == 1);
    CHECK(sleeps == (is_work_there ? 0 : 1));
    CHECK_FALSE(is_asleep(epoch.load()));
  }
}

// A futex keeps no ring. The sleeper has taken what the waker published, announces, is seen and rung for
// before it sleeps, finds nothing new, and sleeps: the next publication must ring again.
TEST_CASE("wake: a futex wake that came to nobody does not count") {
  Word value = 1;
  Word epoch = 0;
  Word cancel = 0;
  Sleeper sleeper(epoch);
  Waker waker(epoch);
  sleeper.announce();
  const auto wake = [&] { return futex_wake_one(value); };
  REQUIRE(waker.ring_if_asleep(kReachesNobody));
  REQUIRE(waker.ring_if_asleep(wake));

  std::atomic<bool> woken = false;
  std::thread other([&] {
    while (value.load() == 1) futex_wait_either(value, 1, cancel, 0, now_ns() + 3600 * kSecond);
    woken = true;
  });
  value.store(2);
  REQUIRE(waker.ring_if_asleep(wake));
  other.join();
  CHECK(woken);
  sleeper.announce();
  REQUIRE(waker.ring_if_asleep(kCounts));
  CHECK_FALSE(waker.ring_if_asleep(kCounts));
}

TEST_CASE("wake: the epoch may wrap") {
  Word epoch = 0xfffffffe;
  Waker waker(epoch);
  epoch.store(0xffffffff);
  CHECK(waker.ring_if_asleep(kCounts));
  epoch.store(0);
  CHECK_FALSE(waker.ring_if_asleep(kCounts));
  epoch.store(1);
  CHECK(waker.ring_if_asleep(kCounts));
}

// Two threads hand a number to and fro, each sleeping without a time limit whenever there is nothing for it.
// A single wake that is lost stops the test for good (the suite's timeout fails it).
TEST_CASE("wake: no hand-off is lost between two that sleep without a time limit") {
  struct Side {
    Word value = 0;  // published by this side
    Word epoch = 0;  // announces this side's sleep
    Word cancel = 0;
  };
  Side sides[2];
  constexpr std::uint32_t kHandOffs = 20'000;
  const auto run = [&sides](int self, unsigned seed) {
    Side& mine = sides[self];
    Side& theirs = sides[1 - self];
    Sleeper sleeper(mine.epoch);
    Waker waker(theirs.epoch);
    std::minstd_rand random(seed);
    for (std::uint32_t expected = 1; expected <= kHandOffs; ++expected) {
      // Side 0 starts; side 1 answers with the same number.
      const auto arrived = [&] { return theirs.value.load() == (self == 0 ? expected - 1 : expected); };
      while (!arrived()) {
        if (random() % 4 == 0) continue;  // sometimes look once more before sleeping
        const std::uint32_t seen = theirs.value.load();
        if (arrived()) break;
        sleeper.announce();
        if (theirs.value.load() == seen)
          futex_wait_either(theirs.value, seen, mine.cancel, 0, now_ns() + 3600 * kSecond);
        sleeper.retire();
      }
      mine.value.store(expected);
      waker.ring_if_asleep([&] { return futex_wake_one(mine.value); });
    }
  };
  std::thread other(run, 1, 11);
  run(0, 22);
  other.join();
  CHECK(sides[0].value == kHandOffs);
  CHECK(sides[1].value == kHandOffs);
}

TEST_CASE("futex: the private word ends a wait as well, and so does the deadline") {
  Word shared = 7;
  Word own = 1;
  futex_wait_either(shared, 7, own, 0, now_ns() + 3600 * kSecond);  // own has another value: returns at once
  const std::uint64_t before = now_ns();
  futex_wait_either(shared, 7, own, 1, before + 20 * kMillisecond);
  CHECK(now_ns() - before >= 10 * kMillisecond);

  std::atomic<bool> woken = false;
  std::thread sleeper([&] {
    while (own.load() == 1) futex_wait_either(shared, 7, own, 1, now_ns() + 3600 * kSecond);
    woken = true;
  });
  own.store(2);
  futex_wake_private(own);
  sleeper.join();
  CHECK(woken);
}

}  // namespace
}  // namespace nvr::shm
