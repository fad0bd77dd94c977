// What is measured of one system: the flow of whole files, and the time from open to the first chunk. Every
// byte that a system delivers is checked by its sum: a wrong one is an error, not a number.
#pragma once

#include <chrono>
#include <cstdint>

#include "tools/bench/histogram.h"
#include "tools/bench/system.h"

namespace nvr::bench {

using BenchClock = std::chrono::steady_clock;

struct Flow {
  double gb_per_s = 0;      // 10^9 bytes
  double cpu_s_per_gb = 0;  // of all processes and threads that took part
  double chunks_per_s = 0;
};

[[nodiscard]] Flow to_flow(double bytes, double chunks, double seconds, double cpu_ns);

// The time that goes by, and what this process and the system's others spend of their CPUs meanwhile, what
// they do after the last chunk included.
class Meter {
 public:
  [[nodiscard]] static Result<Meter> start(const System& system);
  [[nodiscard]] Result<Flow> stop(std::uint64_t bytes, std::uint64_t chunks) const;

 private:
  explicit Meter(const System& system) : system_(system) {}
  [[nodiscard]] Result<std::uint64_t> cpu_ns() const;

  const System& system_;
  std::uint64_t cpu_before_ns_ = 0;
  BenchClock::time_point started_;
};

struct Load {
  std::size_t streams = 1;
  std::size_t consumers = 1;               // threads that share the streams; each takes from its own in turn
  std::chrono::nanoseconds at_least = {};  // how long to go on opening files
};

// Each of the streams reads whole files from begin to end, one after another, until `at_least` has passed;
// ends when all have finished the file that they were at.
[[nodiscard]] Result<Flow> measure_flow(System& system, const FileSet& files, const Load& load);

// Opens 64 KiB ranges at changing places, as many as `count`. The stream is closed, and `pause` goes by,
// before each of them.
struct Opens {
  std::size_t count = 1;
  std::chrono::nanoseconds pause = {};
  bool until_read = false;  // what is measured ends when the chunk has been read; otherwise when it is there
};
[[nodiscard]] Result<void> measure_opens(System& system, const FileSet& files, const Opens& opens,
                                         Histogram& ns);

// Whether what was taken of a range, from its begin on, is right.
[[nodiscard]] Result<void> check_begin_of(System& system, const FileSet& files, FileRange range,
                                          const Tally& taken);

// The time until a chunk is there; reading it is the consumer's own work.
class Arrival final : public Taker {
 public:
  explicit Arrival(Tally& tally) : tally_(tally) {}
  void take(std::span<const std::byte> chunk) override {
    at_ = BenchClock::now();
    tally_.take(chunk);
  }
  [[nodiscard]] BenchClock::time_point at() const { return at_; }

 private:
  Tally& tally_;
  BenchClock::time_point at_ = {};
};

[[nodiscard]] std::uint64_t ns_between(BenchClock::time_point begin, BenchClock::time_point end);

}  // namespace nvr::bench
