#include "tools/bench/disk_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "tools/bench/compare.h"

namespace nvr::bench {
namespace {

const DiskRow* find(const std::vector<DiskRow>& rows, std::string_view part, std::string_view system,
                    std::size_t streams) {
  const auto found = std::ranges::find_if(rows, [&](const DiskRow& row) {
    return row.part == part && row.system == system && row.streams == streams;
  });
  return found == rows.end() ? nullptr : &*found;
}

bool is_ours(const DiskRow& row) {
  return row.system == "nvr_mmap" || row.system == "nvr_io_uring";
}

double least_share(std::size_t streams) {
  switch (streams) {
    case 1:
      return 0.95;
    case 4:
      return 0.60;
    case 16:
      return 0.65;
    default:
      return 0.70;
  }
}

void add_throughput_targets(const DiskRow& row, const std::vector<DiskRow>& rows,
                            std::vector<Target>& targets) {
  constexpr double kLeastJain = 0.98;
  constexpr double kTimesSeed = 6;
  targets.push_back({.what = name_of_target(row.streams, row.system, "MB/s / the disk's"),
                     .measured = row.share(),
                     .bound = least_share(row.streams)});
  const DiskRow* const seed = find(rows, row.part, "seed", row.streams);
  if (row.streams == 16 && seed != nullptr)
    targets.push_back({.what = name_of_target(row.streams, row.system, "MB/s / seed"),
                       .measured = ratio_of(row.mb_per_s, seed->mb_per_s),
                       .bound = kTimesSeed});
  if (row.streams > 1 && row.jain)
    targets.push_back({.what = name_of_target(row.streams, row.system, "fairness (Jain)"),
                       .measured = *row.jain,
                       .bound = kLeastJain});
}

void add_viewer_targets(const DiskRow& row, std::vector<Target>& targets) {
  constexpr double kLeastShare = 0.60;
  targets.push_back({.what = name_of_target(row.streams, row.system, "viewers and export: underruns"),
                     .measured = static_cast<double>(row.underruns.value_or(0)),
                     .at_least = false,
                     .bound = 0});
  targets.push_back({.what = name_of_target(row.streams, row.system, "viewers and export: MB/s / the disk's"),
                     .measured = row.share(),
                     .bound = kLeastShare});
}

void add_first_chunk_targets(const DiskRow& row, const std::vector<DiskRow>& rows,
                             std::vector<Target>& targets) {
  constexpr double kMostOfFifo = 0.25;
  constexpr double kLeastThroughput = 0.95;
  const DiskRow* const fifo = find(rows, row.part, row.system + "_fifo", row.streams);
  if (fifo == nullptr) return;
  // Without an open there is nothing to be proud of.
  const bool compares = !fifo->first_chunk_ms.empty() && !row.first_chunk_ms.empty();
  targets.push_back({.what = name_of_target(row.streams, row.system, "first chunk, p99 / fifo"),
                     .measured = compares ? ratio_of(percentile_of(row.first_chunk_ms, 0.99),
                                                     percentile_of(fifo->first_chunk_ms, 0.99))
                                          : std::numeric_limits<double>::infinity(),
                     .at_least = false,
                     .bound = kMostOfFifo});
  targets.push_back({.what = name_of_target(row.streams, row.system, "first chunk, MB/s / fifo"),
                     .measured = ratio_of(row.mb_per_s, fifo->mb_per_s),
                     .bound = kLeastThroughput});
}

}  // namespace

void print_disk_table(const std::vector<DiskRow>& rows) {
  fmt::print("\n{:<12} {:>7}  {:<18} {:>8} {:>6} {:>6}  {:>9} {:>10}  {:>5} {:>8} {:>8}\n", "part", "streams",
             "system", "MB/s", "share", "Jain", "underruns", "stalled s", "opens", "p50 ms", "p99 ms");
  for (const DiskRow& row : rows) {
    std::string line =
        fmt::format("{:<12} {:>7}  {:<18} {:>8.1f} {:>6.2f} {:>6}", row.part, row.streams, row.system,
                    row.mb_per_s, row.share(), row.jain ? fmt::format("{:.3f}", *row.jain) : "-");
    if (row.underruns) line += fmt::format("  {:>9} {:>10.1f}", *row.underruns, row.stalled_s.value_or(0));
    if (!row.first_chunk_ms.empty())
      line += fmt::format("  {:>9} {:>10}  {:>5} {:>8.1f} {:>8.1f}", "-", "-", row.first_chunk_ms.size(),
                          percentile_of(row.first_chunk_ms, 0.5), percentile_of(row.first_chunk_ms, 0.99));
    fmt::print("{}\n", line);
  }
}

std::vector<Target> disk_targets(const std::vector<DiskRow>& rows) {
  std::vector<Target> targets;
  for (const DiskRow& row : rows) {
    if (!is_ours(row)) continue;
    if (row.part == "throughput") add_throughput_targets(row, rows, targets);
    if (row.part == "viewers") add_viewer_targets(row, targets);
    if (row.part == "first-chunk") add_first_chunk_targets(row, rows, targets);
  }
  return targets;
}

void append_disk_json(const std::vector<DiskRow>& rows, nlohmann::ordered_json& list) {
  for (const DiskRow& row : rows) {
    nlohmann::ordered_json entry = {{"scenario", "disk"},
                                    {"part", row.part},
                                    {"system", row.system},
                                    {"streams", row.streams},
                                    {"seconds", row.seconds},
                                    {"read_ahead_kb", row.read_ahead_kib},
                                    {"disk_mb_per_s", row.disk_mb_per_s},
                                    {"mb_per_s", row.mb_per_s},
                                    {"share", row.share()},
                                    {"jain", nullptr},
                                    {"underruns", nullptr},
                                    {"stalled_s", nullptr},
                                    {"first_chunk_p50_ms", nullptr},
                                    {"first_chunk_p99_ms", nullptr}};
    if (row.jain) entry["jain"] = *row.jain;
    if (row.underruns) entry["underruns"] = *row.underruns;
    if (row.stalled_s) entry["stalled_s"] = *row.stalled_s;
    if (!row.first_chunk_ms.empty()) {
      entry["first_chunk_p50_ms"] = percentile_of(row.first_chunk_ms, 0.5);
      entry["first_chunk_p99_ms"] = percentile_of(row.first_chunk_ms, 0.99);
    }
    list.push_back(entry);
  }
}

Chart disk_chart(const std::vector<DiskRow>& rows) {
  Chart chart = {.title = "disk: share of its sequential bandwidth, by load and number of streams",
                 .series = {},
                 .groups = {}};
  for (const DiskRow& row : rows)
    chart.add(fmt::format("{} {}", row.part, row.streams), row.system, row.share());
  return chart;
}

}  // namespace nvr::bench
