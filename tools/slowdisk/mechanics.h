// The mechanics of a spinning disk: how long its one head takes from one place to the next. Pure: the time is
// an argument, chance comes from a seed, so the same calls give the same answers for ever.
//
//   seek      seek_shortest + (seek_average - seek_shortest) * 15/8 * sqrt(distance / capacity)
//             (15/8, because the mean of sqrt|x - y| over two random places is 8/15)
//   rotation  anything between 0 and twice rotation_average, evenly
//   transfer  length / bandwidth
//
// A drive reads on past what it was asked for, into a buffer of its own: what follows within `lookahead`
// needs neither seek nor rotation, and may even be there already. So reading in order runs at full bandwidth,
// also for a reader that asks for one piece at a time.
#pragma once

#include <cstdint>
#include <random>

#include "tools/slowdisk/units.h"

namespace nvr::slowdisk {

struct MechanicsOptions {
  std::uint64_t capacity_bytes = 0;  // how far apart places can be; set by whoever knows the disk
  Time seek_average = std::chrono::microseconds(8'500);
  Time seek_shortest = std::chrono::microseconds(1'000);  // at most seek_average counts
  Time rotation_average = std::chrono::microseconds(4'200);
  std::uint64_t bandwidth_bytes_per_s = 160'000'000;
  std::uint64_t lookahead_bytes = 1 << 20;
  std::uint64_t seed = 1;
};

class Mechanics {
 public:
  explicit Mechanics(const MechanicsOptions& options) : options_(options), random_(options.seed) {}

  // Moves the head to `position` and over `length` bytes. `start`: when the drive turned to this; not before
  // the last one was finished. Returns when the bytes are there.
  Time access(std::uint64_t position, std::uint64_t length, Time start);

  // Where the head was left: the next byte after the last access.
  [[nodiscard]] std::uint64_t head() const { return head_; }
  // Without rotation. 0 for no distance.
  [[nodiscard]] Time seek_time(std::uint64_t distance) const;
  [[nodiscard]] Time transfer_time(std::uint64_t length) const;

 private:
  MechanicsOptions options_;
  std::mt19937_64 random_;
  std::uint64_t head_ = 0;
  Time passed_head_at_{
      0};  // when the medium passed head_; before the last access was finished if that was read ahead
};

}  // namespace nvr::slowdisk
