// What scenario "disk" has found: a row is one system under one load, on one modelled disk.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tools/bench/chart.h"
#include "tools/bench/report.h"

namespace nvr::bench {

struct DiskRow {
  std::string part;  // "throughput", "viewers", "first-chunk"
  std::string system;
  std::size_t streams = 0;
  std::uint64_t read_ahead_kib = 0;  // of the kernel, for this disk
  double disk_mb_per_s = 0;          // what one sequential reader gets of the same disk
  double mb_per_s = 0;
  double seconds = 0;
  std::optional<double> jain = {};
  std::optional<std::uint64_t> underruns = {};
  std::optional<double> stalled_s = {};
  std::vector<double> first_chunk_ms = {};

  [[nodiscard]] double share() const { return disk_mb_per_s > 0 ? mb_per_s / disk_mb_per_s : 0; }
};

void print_disk_table(const std::vector<DiskRow>& rows);
[[nodiscard]] std::vector<Target> disk_targets(const std::vector<DiskRow>& rows);
void append_disk_json(const std::vector<DiskRow>& rows, nlohmann::ordered_json& list);
// The shares, grouped by load.
[[nodiscard]] Chart disk_chart(const std::vector<DiskRow>& rows);

}  // namespace nvr::bench
