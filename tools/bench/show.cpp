#include "tools/bench/show.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "tools/bench/chart.h"
#include "tools/bench/text_files.h"

namespace nvr::bench {
namespace {

constexpr double kQuietCpus = 0.1;  // what others may use without being noticed

// What of a scenario's rows is drawn.
struct Drawing {
  std::string_view scenario;
  const char* title;
  double (*value)(const Row&);
  bool is_logarithmic = false;
};

double speed(const Row& row) {
  return row.gb_per_s.median;
}
double cpu(const Row& row) {
  return row.cpu_s_per_gb.median;
}
double opens(const Row& row) {
  return row.ops_per_s.median;
}
double p50(const Row& row) {
  return row.latency ? row.latency->p50_us : 0;
}

constexpr std::array kDrawings = {
    Drawing{"hot", "hot: GB/s, by number of streams", speed},
    Drawing{"hot", "hot: CPU seconds per GB of all processes, by number of streams", cpu},
    Drawing{"latency", "latency: until the chunk is there, p50, us", p50, true},
    Drawing{"small", "small: opens per second", opens},
    Drawing{"scale", "scale: GB/s, by number of streams", speed},
    Drawing{"event-loop", "event-loop: GB/s of 256 streams", speed},
    Drawing{"stream-out", "stream-out: GB/s through TCP, by number of streams", speed},
    Drawing{"cold", "cold: GB/s, by number of streams", speed}};

std::string group_of(const Row& row) {
  if (row.scenario == "latency" || row.scenario == "event-loop") return row.part;
  if (row.scenario == "small")
    return fmt::format("{} {}", row.part.substr(0, row.part.find(',')), row.streams);
  if (row.scenario == "hot" && !row.part.empty()) return row.part;
  return fmt::format("{}", row.streams);
}

std::vector<Chart> charts_of(const Findings& findings) {
  std::vector<Chart> charts;
  for (const Drawing& drawing : kDrawings) {
    Chart chart = {
        .title = drawing.title, .series = {}, .groups = {}, .is_logarithmic = drawing.is_logarithmic};
    for (const Row& row : findings.rows)
      if (row.scenario == drawing.scenario && drawing.value(row) > 0)
        chart.add(group_of(row), row.system, drawing.value(row));
    if (!chart.groups.empty()) charts.push_back(std::move(chart));
  }
  if (!findings.disk.empty()) charts.push_back(disk_chart(findings.disk));
  return charts;
}

}  // namespace

void print_findings(const Findings& findings) {
  if (!findings.disk.empty()) {
    print_disk_table(findings.disk);
  } else {
    if (findings.references.empty())
      print_plain_table(findings.rows);
    else
      print_table(findings.rows, findings.references);
    fmt::print("\nother processes kept {:.2f} CPUs busy meanwhile{}\n", findings.foreign_cpus,
               findings.foreign_cpus > kQuietCpus ? ": too many for figures to rely on" : "");
  }
  print_targets(findings.targets);
  std::fflush(stdout);
}

Result<void> write_json(std::span<const Findings> all, const std::string& path) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Findings& findings : all) {
    append_json(findings.rows, list);
    append_disk_json(findings.disk, list);
  }
  return write_text(list.dump(2) + '\n', path);
}

Result<void> write_svg(std::span<const Findings> all, const std::string& path) {
  std::vector<Chart> charts;
  for (const Findings& findings : all)
    for (Chart& chart : charts_of(findings)) charts.push_back(std::move(chart));
  return write_charts(charts, path);
}

}  // namespace nvr::bench
