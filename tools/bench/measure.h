// What is measured of one system: the flow of whole files, and the time from open to the first chunk. Every
// byte that a system delivers is checked by its sum: a wrong one is an error, not a number.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "tools/bench/system.h"

namespace nvr::bench {

struct Flow {
  double gb_per_s = 0;      // 10^9 bytes
  double cpu_s_per_gb = 0;  // of all processes and threads that took part
  double chunks_per_s = 0;
};

struct Load {
  std::size_t streams = 1;
  std::size_t consumers = 1;               // threads that share the streams; each takes from its own in turn
  std::chrono::nanoseconds at_least = {};  // how long to go on opening files
};

// CPU time of this process and of the system's others until now, what they do after the last chunk included.
[[nodiscard]] Result<std::uint64_t> cpu_ns_with(const System& system);

// Each of the streams reads whole files from begin to end, one after another, until `at_least` has passed;
// ends when all have finished the file that they were at.
[[nodiscard]] Result<Flow> measure_flow(System& system, const FileSet& files, const Load& load);

// How busy the rest of the machine is while a scenario measures.
class ForeignLoad {
 public:
  // Starts counting.
  [[nodiscard]] static Result<ForeignLoad> watch(const std::vector<std::unique_ptr<System>>& systems);
  // Where all helpers are children that start after this and have been waited for before cpus().
  [[nodiscard]] static ForeignLoad watch_children();
  // CPUs that anything but this process and the systems' helpers has used on average since then.
  [[nodiscard]] Result<double> cpus() const;

 private:
  struct Sample {
    std::chrono::steady_clock::time_point at;
    double foreign_cpu_s = 0;
  };
  ForeignLoad(const std::vector<std::unique_ptr<System>>& systems, Sample start)
      : systems_(systems), start_(start) {}
  [[nodiscard]] static Result<Sample> sample(const std::vector<std::unique_ptr<System>>& systems);

  const std::vector<std::unique_ptr<System>>& systems_;
  Sample start_;
};

// Opens 64 KiB ranges at changing places `count` times: microseconds from the call to open() until the chunk
// has been read. The stream is closed, and `pause` goes by, before the next.
[[nodiscard]] Result<std::vector<double>> measure_opens(System& system, const FileSet& files,
                                                        std::size_t count, std::chrono::nanoseconds pause);

}  // namespace nvr::bench
