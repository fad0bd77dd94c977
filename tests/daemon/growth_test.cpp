// A recording that is still being written: how far it may be read, when it is finished, when to look again.
#include "daemon/growth.h"

#include <catch2/catch.hpp>

namespace nvr::daemon {
namespace {

using shm::kSlotBytes;
constexpr std::uint64_t kMs = shm::kMillisecond;

TEST_CASE("growth: whole chunks, counted from the range's begin, and the rest once it is finished") {
  constexpr std::uint64_t kBegin = 1000;
  Growth growth(kBegin, UINT64_MAX, kBegin + kSlotBytes + 5, 1000, 0);
  CHECK(growth.goes_on());
  CHECK(growth.readable_end() == kBegin + kSlotBytes);
  growth.look(kBegin + 2 * kSlotBytes - 1, 1);
  CHECK(growth.readable_end() == kBegin + kSlotBytes);
  growth.look(kBegin + 2 * kSlotBytes, 1);
  CHECK(growth.readable_end() == kBegin + 2 * kSlotBytes);
  growth.finish();
  CHECK(growth.goes_on());  // there may be more since the last look
  growth.look(kBegin + 2 * kSlotBytes + 7, 2);
  CHECK_FALSE(growth.goes_on());
  CHECK(growth.readable_end() == kBegin + 2 * kSlotBytes + 7);
  CHECK_FALSE(Growth().goes_on());
}

TEST_CASE("growth: finished when it has not grown for the time given, which may be for ever") {
  Growth growth(0, UINT64_MAX, 100, 1000, 50 * kMs);
  growth.look(100, 1049 * kMs);
  CHECK(growth.goes_on());
  growth.look(101, 1049 * kMs);
  growth.look(101, 2048 * kMs);
  CHECK(growth.goes_on());
  growth.look(101, 2049 * kMs);
  CHECK_FALSE(growth.goes_on());
  for (const std::uint64_t quiet_ms : {UINT64_MAX, UINT64_MAX / kMs + 1}) {
    Growth patient(0, UINT64_MAX, 100, quiet_ms, 0);
    patient.look(100, 100'000'000 * shm::kSecond);
    CHECK(patient.goes_on());
  }
}

TEST_CASE("growth: finished at the end of the range, wherever the recording goes") {
  Growth growth(0, 100, 99, 1000, 0);
  CHECK(growth.goes_on());
  growth.look(100, 1);
  CHECK_FALSE(growth.goes_on());
  CHECK(growth.readable_end() == 100);
  CHECK_FALSE(Growth(0, 100, 300, 1000, 0).goes_on());
  CHECK(Growth(0, 100, 300, 1000, 0).readable_end() == 100);
}

TEST_CASE("growth watch: the earliest first, and nobody looks twice within its interval unless told to") {
  GrowthWatch watch;
  Follower a;
  Follower b;
  Follower c;
  CHECK(watch.due_ns() == 0);
  watch.add(a, 1000 * kMs);
  watch.add(b, 1000 * kMs);
  CHECK(watch.next(1000 * kMs) == &a);
  CHECK(watch.next(1000 * kMs) == &b);
  CHECK(watch.next(1000 * kMs) == nullptr);
  watch.add(b, 1300 * kMs);
  watch.add(a, 1010 * kMs);
  watch.add(c, 1100 * kMs, true);
  CHECK(watch.due_ns() == 1100 * kMs);
  CHECK(watch.next(1099 * kMs) == nullptr);
  CHECK(watch.next(2000 * kMs) == &c);
  CHECK(watch.due_ns() == 1000 * kMs + GrowthWatch::kLookNs);
  CHECK(watch.next(2000 * kMs) == &a);
  watch.add(b, 1260 * kMs, true);
  CHECK(watch.due_ns() == 1260 * kMs);
  GrowthWatch::remove(b);
  CHECK(watch.due_ns() == 0);
  watch.add(b, 1270 * kMs);
  CHECK(watch.due_ns() == 1260 * kMs + GrowthWatch::kLookNs);
  GrowthWatch::forget(b);
  CHECK(watch.due_ns() == 0);
  watch.add(b, 1270 * kMs);
  CHECK(watch.due_ns() == 1270 * kMs);
  GrowthWatch::remove(b);
  {
    Follower gone;
    watch.add(gone, 1);
  }
  CHECK(watch.next(UINT64_MAX) == nullptr);
}

}  // namespace
}  // namespace nvr::daemon
