// A log-linear histogram as HdrHistogram's: 64 buckets to each power of two, so that a value is known to 1.6
// % from nanoseconds to a minute, in a fixed 16 KiB and without an allocation when one is added.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace nvr::bench {

class Histogram {
 public:
  void add(std::uint64_t value);
  void add_all(const Histogram& other);

  [[nodiscard]] std::uint64_t count() const { return count_; }
  // The largest value of the bucket that holds the given part (0..1) of all. 0 where there are none.
  [[nodiscard]] std::uint64_t percentile(double part) const;

 private:
  static constexpr unsigned kSubBits = 6;
  static constexpr std::uint64_t kSubBuckets = std::uint64_t{1} << kSubBits;
  static constexpr unsigned kPowers = 36;  // 2^36 ns is a minute

  [[nodiscard]] static std::size_t bucket_of(std::uint64_t value);
  [[nodiscard]] static std::uint64_t last_of(std::size_t bucket);

  std::array<std::uint64_t, (kPowers - kSubBits + 1)* kSubBuckets> buckets_ = {};
  std::uint64_t count_ = 0;
};

}  // namespace nvr::bench
