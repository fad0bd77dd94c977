#include "tools/slowdisk/mechanics.h"

#include <algorithm>
#include <cmath>

#include "tools/slowdisk/chance.h"

namespace nvr::slowdisk {
namespace {

Time scale(Time time, double factor) {
  return Time(std::llround(static_cast<double>(time.count()) * factor));
}

}  // namespace

Time Mechanics::access(std::uint64_t position, std::uint64_t length, Time start) {
  const bool reads_on = position >= head_ && position - head_ <= options_.lookahead_bytes;
  if (reads_on) {
    // Since then the drive has been reading on, until its buffer was full.
    passed_head_at_ = std::max(passed_head_at_, start - transfer_time(options_.lookahead_bytes)) +
                      transfer_time(position + length - head_);
  } else {
    const std::uint64_t distance = position > head_ ? position - head_ : head_ - position;
    const Time rotation = scale(options_.rotation_average, 2 * chance(random_));
    passed_head_at_ = start + seek_time(distance) + rotation + transfer_time(length);
  }
  head_ = position + length;
  return std::max(start, passed_head_at_);
}

Time Mechanics::seek_time(std::uint64_t distance) const {
  if (distance == 0 || options_.capacity_bytes == 0) return Time(0);
  const double share =
      std::min(1.0, static_cast<double>(distance) / static_cast<double>(options_.capacity_bytes));
  const Time shortest = std::min(options_.seek_shortest, options_.seek_average);
  return shortest + scale(options_.seek_average - shortest, 15.0 / 8 * std::sqrt(share));
}

Time Mechanics::transfer_time(std::uint64_t length) const {
  if (options_.bandwidth_bytes_per_s == 0) return Time(0);
  return Time(
      std::llround(static_cast<double>(length) * 1e9 / static_cast<double>(options_.bandwidth_bytes_per_s)));
}

}  // namespace nvr::slowdisk
