#include "tools/bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace nvr::bench {

void Histogram::add(std::uint64_t value) {
  ++buckets_[bucket_of(value)];
  ++count_;
}

void Histogram::add_all(const Histogram& other) {
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) buckets_[bucket] += other.buckets_[bucket];
  count_ += other.count_;
}

std::uint64_t Histogram::percentile(double part) const {
  const auto rank = static_cast<std::uint64_t>(std::ceil(part * static_cast<double>(count_)));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    seen += buckets_[bucket];
    if (seen >= std::max<std::uint64_t>(rank, 1)) return last_of(bucket);
  }
  return 0;
}

// The first 64 buckets hold a value each. From there on each power of two has 64, told apart by the bits
// after the first.
std::size_t Histogram::bucket_of(std::uint64_t value) {
  const std::uint64_t known = std::min(value, (std::uint64_t{1} << kPowers) - 1);
  if (known < kSubBuckets) return known;
  const auto shift = static_cast<unsigned>(std::bit_width(known)) - 1 - kSubBits;
  return shift * kSubBuckets + (known >> shift);
}

std::uint64_t Histogram::last_of(std::size_t bucket) {
  if (bucket < 2 * kSubBuckets) return bucket;
  const std::uint64_t shift = bucket / kSubBuckets - 1;
  const std::uint64_t first = kSubBuckets + bucket % kSubBuckets;
  return ((first + 1) << shift) - 1;
}

}  // namespace nvr::bench
