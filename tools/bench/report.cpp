#include "tools/bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace nvr::bench {
namespace {

std::string ratio_text(double value, double reference) {
  return reference > 0 ? fmt::format("{:.2f}x", value / reference) : std::string("-");
}

std::string spread_text(const Spread& spread, int digits) {
  return fmt::format("{:.{}f} ({:.{}f}..{:.{}f})", spread.median, digits, spread.min, digits, spread.max,
                     digits);
}

// The ratio of one figure to each reference's.
template <class Figure>
std::string ratio_columns(const Row& row, const std::vector<Row>& rows,
                          const std::vector<std::string>& references, Figure figure) {
  std::string out;
  for (const std::string& reference : references) {
    const Row* const other = find_row(rows, reference, row.streams, row.part);
    out += fmt::format(" {:>8}", other == nullptr ? "-" : ratio_text(figure(row), figure(*other)));
  }
  return out;
}

std::string ratio_headings(const std::vector<std::string>& references) {
  std::string out;
  for (const std::string& reference : references) out += fmt::format(" {:>8}", "/" + reference);
  return out;
}

std::string label_of(const Row& row) {
  return row.part.empty() ? row.system : row.system + ", " + row.part;
}

std::string row_line(const Row& row, const std::vector<Row>& rows,
                     const std::vector<std::string>& references) {
  const auto speed = [](const Row& r) { return r.gb_per_s.median; };
  const auto cpu = [](const Row& r) { return r.cpu_s_per_gb.median; };
  const auto p50 = [](const Row& r) { return r.latency ? r.latency->p50_us : 0; };
  std::string out = fmt::format("{:>7}  {:<22} {:>20}{}  {:>22}{}  {:>9.0f}", row.streams, label_of(row),
                                spread_text(row.gb_per_s, 2), ratio_columns(row, rows, references, speed),
                                spread_text(row.cpu_s_per_gb, 3), ratio_columns(row, rows, references, cpu),
                                row.ops_per_s.median);
  if (row.latency)
    out += fmt::format("  {:>8.1f} {:>8.1f}{}", row.latency->p50_us, row.latency->p99_us,
                       ratio_columns(row, rows, references, p50));
  return out + "\n";
}

}  // namespace

double percentile_of(std::vector<double> values, double part) {
  std::ranges::sort(values);
  const auto rank = static_cast<std::size_t>(std::ceil(part * static_cast<double>(values.size())));
  return values[std::clamp<std::size_t>(rank, 1, values.size()) - 1];
}

Spread spread_of(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {.median = median, .min = values.front(), .max = values.back()};
}

bool Target::met() const {
  if (strict) return at_least ? measured > bound : measured < bound;
  return at_least ? measured >= bound : measured <= bound;
}

const Row* find_row(const std::vector<Row>& rows, std::string_view system, std::size_t streams,
                    std::string_view part) {
  const auto found = std::ranges::find_if(rows, [&](const Row& row) {
    return row.system == system && row.streams == streams && row.part == part;
  });
  return found == rows.end() ? nullptr : &*found;
}

void print_table(const std::vector<Row>& rows, const std::vector<std::string>& references) {
  const std::string ratios = ratio_headings(references);
  fmt::print("{:>7}  {:<22} {:>20}{}  {:>22}{}  {:>9}  {:>8} {:>8}{}\n", "streams", "system",
             "GB/s (min..max)", ratios, "CPU s/GB (min..max)", ratios, "chunks/s", "open p50", "p99 us",
             ratios);
  std::size_t streams = rows.empty() ? 0 : rows.front().streams;
  for (const Row& row : rows) {
    if (row.streams != streams) fmt::print("\n");
    streams = row.streams;
    fmt::print("{}", row_line(row, rows, references));
  }
}

void print_plain_table(const std::vector<Row>& rows) {
  const bool has_flow = std::ranges::any_of(rows, [](const Row& row) { return row.gb_per_s.max > 0; });
  const bool has_latency = std::ranges::any_of(rows, [](const Row& row) { return row.latency.has_value(); });
  const auto number = [](const Spread& spread, int digits) {
    return spread.max > 0 ? spread_text(spread, digits) : std::string("-");
  };
  const auto line_of = [&](std::string_view part, std::string_view streams, std::string_view system,
                           const std::string& flow, const std::string& latency) {
    return fmt::format("{:<28} {:>7}  {:<13}{}{}", part, streams, system, has_flow ? flow : "",
                       has_latency ? latency : "");
  };
  constexpr std::string_view kFlow = "{:>22} {:>22} {:>28}";
  constexpr std::string_view kLatency = "  {:>9} {:>9} {:>9}";
  fmt::print("{}\n", line_of("", "streams", "system",
                             fmt::format(kFlow, "GB/s (min..max)", "CPU s/GB (min..max)", "ops/s (min..max)"),
                             fmt::format(kLatency, "p50 us", "p99 us", "p99.9 us")));
  for (const Row& row : rows) {
    const auto us = [](double value) { return fmt::format("{:.2f}", value); };
    const Latency latency = row.latency.value_or(Latency());
    std::string line = line_of(
        row.part, std::to_string(row.streams), row.system,
        fmt::format(kFlow, number(row.gb_per_s, 2), number(row.cpu_s_per_gb, 3), number(row.ops_per_s, 0)),
        fmt::format(kLatency, us(latency.p50_us), us(latency.p99_us), us(latency.p999_us)));
    for (const Figure& figure : row.figures) line += fmt::format("  {} {:.5g}", figure.name, figure.value);
    fmt::print("{}\n", line);
  }
}

void print_targets(const std::vector<Target>& targets) {
  if (targets.empty()) return;
  fmt::print("\n{:<66} | {:>10} | {:>8} | met\n", "target (ratios are of medians)", "required", "measured");
  for (const Target& target : targets) {
    const char* const relation =
        target.at_least ? (target.strict ? ">" : ">=") : (target.strict ? "<" : "<=");
    fmt::print("{:<66} | {:>10} | {:>8.2f} | {}\n", target.what,
               fmt::format("{} {:.2f}", relation, target.bound), target.measured,
               target.met() ? "yes" : "NO");
  }
}

void append_json(const std::vector<Row>& rows, nlohmann::ordered_json& list) {
  for (const Row& row : rows) {
    nlohmann::ordered_json entry = {{"scenario", row.scenario},
                                    {"part", row.part},
                                    {"system", row.system},
                                    {"streams", row.streams},
                                    {"gb_per_s", row.gb_per_s.median},
                                    {"cpu_s_per_gb", row.cpu_s_per_gb.median},
                                    {"ops_per_s", row.ops_per_s.median},
                                    {"p50_us", nullptr},
                                    {"p99_us", nullptr}};
    if (row.latency) {
      entry["p50_us"] = row.latency->p50_us;
      entry["p99_us"] = row.latency->p99_us;
      if (row.latency->p999_us > 0) entry["p999_us"] = row.latency->p999_us;
    }
    for (const Figure& figure : row.figures) entry[figure.name] = figure.value;
    list.push_back(entry);
  }
}

}  // namespace nvr::bench
