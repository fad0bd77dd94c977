// What the scenarios have in common: systems side by side, and what was measured of each.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tools/bench/measure.h"
#include "tools/bench/report.h"
#include "tools/bench/scenario.h"

namespace nvr::bench {

using MakeSystem = Result<std::unique_ptr<System>> (*)(const SystemSetup&);
using Systems = std::vector<std::unique_ptr<System>>;

// Rounds that do not count. A daemon keeps a map of what has been read three times, and the pages of maps and
// windows are filled in as they are touched: the fifth time a system is as it stays.
inline constexpr std::size_t kWarmUpRounds = 4;

// In the order of `makers`. nvr_io_uring is left out, and a line says why, where io_uring does not work.
[[nodiscard]] Result<Systems> make_systems(std::span<const MakeSystem> makers, const SystemSetup& setup);

// Everything that was measured of one system with one number of streams, over the rounds.
struct Samples {
  std::vector<double> gb_per_s;
  std::vector<double> cpu_s_per_gb;
  std::vector<double> chunks_per_s;
  std::vector<double> open_us;

  void add(const Flow& flow);
};

[[nodiscard]] Row to_row(std::string scenario, std::string_view system, std::size_t streams,
                         const Samples& samples);

// "16 streams: nvr_mmap GB/s / seed".
[[nodiscard]] std::string name_of_target(std::size_t streams, std::string_view system, std::string_view what);
// 0 where the reference is.
[[nodiscard]] double ratio_of(double value, double reference);

// "2 CPUs, Linux 6.18".
[[nodiscard]] std::string describe_machine();

}  // namespace nvr::bench
