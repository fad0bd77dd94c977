// The mechanics of the modelled disk: averages as promised, reading on at full bandwidth, the same for ever.
#include "tools/slowdisk/mechanics.h"

#include <catch2/catch.hpp>

#include "tests/support/environment.h"

namespace nvr::slowdisk {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kCapacity = 1'000'000'000'000;
constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kPiece = 65'536;

MechanicsOptions options(std::uint64_t seed = 1) {
  MechanicsOptions result;
  result.capacity_bytes = kCapacity;
  result.seed = seed;
  return result;
}
double ms(Time time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

TEST_CASE("a random read takes a seek, half a turn and its transfer on average") {
  Mechanics mechanics(options(test::test_seed()));
  constexpr int kReads = 20'000;
  Time now{0};
  for (int i = 0; i < kReads; ++i)
    now = mechanics.access(test::pick(test::test_random(), 0, kCapacity - kPiece), kPiece, now);
  // The error of this mean is 0.03 ms.
  CHECK(ms(now) / kReads == Approx(8.5 + 4.2 + ms(mechanics.transfer_time(kPiece))).margin(0.25));
}

TEST_CASE("a seek is longer for a longer way") {
  const Mechanics mechanics(options());
  CHECK(mechanics.seek_time(0) == 0ms);
  CHECK(mechanics.seek_time(1) >= 1ms);
  CHECK(mechanics.seek_time(1) < 1100us);
  CHECK(mechanics.seek_time(kCapacity / 100) < mechanics.seek_time(kCapacity / 4));
  CHECK(mechanics.seek_time(kCapacity / 4) < mechanics.seek_time(kCapacity));
  CHECK(ms(mechanics.seek_time(kCapacity)) == Approx(1 + 7.5 * 15 / 8).margin(0.001));
  CHECK(mechanics.seek_time(2 * kCapacity) == mechanics.seek_time(kCapacity));
}

TEST_CASE("reading in order runs at full bandwidth, also with pauses that the drive's buffer covers") {
  Mechanics mechanics(options());
  Time now = mechanics.access(kCapacity / 2, kMiB, 0ms);
  const Time begin = now;
  for (std::uint64_t i = 1; i <= 100; ++i) {
    const Time asked = now + (i % 2 == 0 ? 2ms : 0ms);  // the transfer of a mebibyte takes 6.6 ms
    now = mechanics.access(kCapacity / 2 + i * kMiB, kMiB, asked);
  }
  CHECK(ms(now - begin) == Approx(ms(mechanics.transfer_time(100 * kMiB))).margin(0.001));
}

TEST_CASE("the drive reads on no further than its buffer") {
  Mechanics mechanics(options());
  const Time begin = mechanics.access(0, kMiB, 0ms);
  // What it read on during a second is there at once; the rest has to come from the medium.
  CHECK(mechanics.access(kMiB, kMiB, begin + 1s) == begin + 1s);
  CHECK(mechanics.access(2 * kMiB, kMiB, begin + 1s) == begin + 1s + mechanics.transfer_time(kMiB));
}

TEST_CASE("what is skipped within the buffer passes under the head") {
  Mechanics mechanics(options());
  const Time begin = mechanics.access(0, kPiece, 0ms);
  CHECK(mechanics.access(kPiece + kPiece, kPiece, begin) == begin + mechanics.transfer_time(2 * kPiece));
  const Time again = mechanics.access(3 * kPiece + 2 * kMiB, kPiece, begin + 1s);
  CHECK(again >= begin + 1s + 1ms);  // too far: a seek
}

TEST_CASE("a step back is a seek") {
  Mechanics mechanics(options());
  const Time begin = mechanics.access(kMiB, kPiece, 0ms);
  CHECK(mechanics.access(kMiB, kPiece, begin) >= begin + mechanics.seek_time(kPiece));
}

TEST_CASE("the same seed gives the same times, another one others") {
  const auto run = [](std::uint64_t seed) {
    Mechanics mechanics(options(seed));
    Time now{0};
    for (std::uint64_t i = 0; i < 100; ++i) now = mechanics.access(i * 7919 % 100 * kMiB * 100, kPiece, now);
    return now;
  };
  CHECK(run(3) == run(3));
  CHECK(run(3) != run(4));
}

TEST_CASE("a disk without seeks, rotation and limits takes no time") {
  MechanicsOptions none = options();
  none.seek_average = none.rotation_average = 0ms;
  none.bandwidth_bytes_per_s = 0;
  Mechanics mechanics(none);
  CHECK(mechanics.access(kCapacity / 2, kMiB, 5ms) == 5ms);
  CHECK(mechanics.access(0, kMiB, 5ms) == 5ms);
}

}  // namespace
}  // namespace nvr::slowdisk
