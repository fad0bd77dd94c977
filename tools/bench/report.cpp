#include "tools/bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

namespace nvr::bench {
namespace {

constexpr const char* kNothing = "-";
constexpr std::uint64_t kLeastForP999 = 500;

// Of none: zeros.
Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {.median = median, .min = values.front(), .max = values.back()};
}

// Null: there is none.
const Row* find_row(const std::vector<Row>& rows, std::string_view system, std::size_t streams,
                    std::string_view part) {
  const auto found = std::ranges::find_if(rows, [&](const Row& row) {
    return row.system == system && row.streams == streams && row.part == part;
  });
  return found == rows.end() ? nullptr : &*found;
}

double figure_of(const Row& row, std::string_view name) {
  if (name == "gb_per_s") return row.gb_per_s.median;
  if (name == "cpu_s_per_gb") return row.cpu_s_per_gb.median;
  if (name == "ops_per_s") return row.ops_per_s.median;
  if (name == "p50_us" && row.latency) return row.latency->p50_us;
  for (const auto& [figure, value] : row.figures)
    if (figure == name) return value;
  return std::numeric_limits<double>::quiet_NaN();
}

// A column of the table: its heading, and a cell for each row.
struct Column {
  std::string heading;
  bool is_left = false;
  std::vector<std::string> cells = {};

  [[nodiscard]] bool is_empty() const {
    return std::ranges::all_of(cells,
                               [](const std::string& cell) { return cell.empty() || cell == kNothing; });
  }
  [[nodiscard]] std::string aligned(const std::string& text) const {
    std::size_t width = heading.size();
    for (const std::string& cell : cells) width = std::max(width, cell.size());
    return is_left ? fmt::format("{:<{}}  ", text, width) : fmt::format("{:>{}}  ", text, width);
  }
};

class Table {
 public:
  Table(const std::vector<Row>& rows, const std::vector<std::string>& references)
      : rows_(rows), references_(references) {
    add("streams", false, [](const Row& row) { return std::to_string(row.streams); });
    add("part", true, [](const Row& row) { return row.part; });
    add("system", true, [](const Row& row) { return row.system; });
    add_spread("GB/s (min..max)", "gb_per_s", &Row::gb_per_s, 2);
    add_spread("CPU s/GB (min..max)", "cpu_s_per_gb", &Row::cpu_s_per_gb, 3);
    add_spread("ops/s (min..max)", "ops_per_s", &Row::ops_per_s, 0);
    add_latency("p50 us", &Latency::p50_us);
    add_ratios("p50_us");
    add_latency("p99 us", &Latency::p99_us);
    add_latency("p99.9 us", &Latency::p999_us);
    add_figures();
    std::erase_if(columns_, [](const Column& column) { return column.is_empty(); });
  }

  [[nodiscard]] std::string text() const {
    std::string out = line([](const Column& column) { return column.heading; });
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (i > 0 && !references_.empty() && rows_[i].streams != rows_[i - 1].streams) out += '\n';
      out += line([&](const Column& column) { return column.cells[i]; });
    }
    return out;
  }

 private:
  template <class CellOf>
  [[nodiscard]] std::string line(CellOf cell_of) const {
    std::string out;
    for (const Column& column : columns_) out += column.aligned(cell_of(column));
    out.erase(out.find_last_not_of(' ') + 1);
    return out + '\n';
  }
  void add(std::string heading, bool is_left, const std::function<std::string(const Row&)>& cell) {
    Column& column = columns_.emplace_back(Column{.heading = std::move(heading), .is_left = is_left});
    for (const Row& row : rows_) column.cells.push_back(cell(row));
  }
  void add_spread(std::string heading, std::string_view figure, Spread Row::*spread, int digits) {
    add(std::move(heading), false, [=](const Row& row) {
      const auto& [median, min, max] = row.*spread;
      if (max <= 0) return std::string(kNothing);
      return fmt::format("{:.{}f} ({:.{}f}..{:.{}f})", median, digits, min, digits, max, digits);
    });
    if (figure != "ops_per_s") add_ratios(figure);
  }
  void add_latency(std::string heading, double Latency::*value) {
    add(std::move(heading), false, [=](const Row& row) {
      return row.latency && *row.latency.*value > 0 ? fmt::format("{:.2f}", *row.latency.*value) : kNothing;
    });
  }
  void add_ratios(std::string_view figure) {
    for (const std::string& reference : references_)
      add("/" + reference, false, [&](const Row& row) {
        const Row* const other = find_row(rows_, reference, row.streams, row.part);
        const double ratio = other == nullptr ? 0 : figure_of(row, figure) / figure_of(*other, figure);
        return std::isfinite(ratio) && ratio > 0 ? fmt::format("{:.2f}x", ratio) : kNothing;
      });
  }
  void add_figures() {
    add("", true, [](const Row& row) {
      std::string text;
      for (const auto& [name, value] : row.figures)
        if (!std::isnan(value)) text += fmt::format("{}{} {:.4g}", text.empty() ? "" : "  ", name, value);
      return text;
    });
  }

  const std::vector<Row>& rows_;
  const std::vector<std::string>& references_;
  std::vector<Column> columns_;
};

}  // namespace

void Samples::add(const Flow& flow) {
  gb_per_s.push_back(flow.gb_per_s);
  cpu_s_per_gb.push_back(flow.cpu_s_per_gb);
  ops_per_s.push_back(flow.chunks_per_s);
}

void Samples::add(std::string_view figure, double value) {
  for (auto& [name, values] : figures)
    if (name == figure) return values.push_back(value);
  figures.push_back({std::string(figure), {value}});
}

Row to_row(std::string_view scenario, std::string part, std::string system, std::size_t streams,
           const Samples& samples) {
  Row row = {.scenario = std::string(scenario),
             .part = std::move(part),
             .system = std::move(system),
             .streams = streams,
             .gb_per_s = spread_of(samples.gb_per_s),
             .cpu_s_per_gb = spread_of(samples.cpu_s_per_gb),
             .ops_per_s = spread_of(samples.ops_per_s)};
  const auto us = [&](double part_of_all) {
    return static_cast<double>(samples.ns.percentile(part_of_all)) / 1e3;
  };
  if (samples.ns.count() > 0)
    row.latency = Latency{
        .p50_us = us(0.5), .p99_us = us(0.99), .p999_us = samples.ns.count() < kLeastForP999 ? 0 : us(0.999)};
  for (const auto& [name, values] : samples.figures) row.figures.emplace_back(name, spread_of(values).median);
  return row;
}

double fairness_of(const std::vector<double>& shares) {
  double sum = 0;
  double squares = 0;
  for (const double share : shares) {
    sum += share;
    squares += share * share;
  }
  return squares > 0 ? sum * sum / (static_cast<double>(shares.size()) * squares) : 0;
}

bool Target::met() const {
  switch (bound) {
    case Bound::kAtLeast:
      return measured >= required;
    case Bound::kAtMost:
      return measured <= required;
    case Bound::kBelow:
      return measured < required;
  }
  return false;
}

double Referee::value(std::string_view system, std::size_t streams, std::string_view figure,
                      std::string_view part) const {
  const Row* const row = find_row(rows_, system, streams, part);
  return row == nullptr ? std::numeric_limits<double>::quiet_NaN() : figure_of(*row, figure);
}

void Referee::add(Target::Bound bound, double required, std::string_view what, double measured) {
  if (!std::isnan(measured))
    targets_.push_back({.what = fmt::format("{}: {}", ours_, what),
                        .bound = bound,
                        .required = required,
                        .measured = measured});
}

std::string table_of(const std::vector<Row>& rows, const std::vector<std::string>& references) {
  return Table(rows, references).text();
}

void print_targets(const std::vector<Target>& targets) {
  if (targets.empty()) return;
  fmt::print("\n{:<72} | {:>10} | {:>8} | met\n", "target (ratios are of medians)", "required", "measured");
  for (const Target& target : targets) {
    constexpr std::array kRelations = {">=", "<=", "<"};
    fmt::print(
        "{:<72} | {:>10} | {:>8.2f} | {}\n", target.what,
        fmt::format("{} {:.2f}", kRelations.at(static_cast<std::size_t>(target.bound)), target.required),
        target.measured, target.met() ? "yes" : "NO");
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
    for (const auto& [name, value] : row.figures) entry[name] = value;  // null where it is not a number
    list.push_back(entry);
  }
}

}  // namespace nvr::bench
