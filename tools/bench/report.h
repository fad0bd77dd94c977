// What a scenario has found, for a person and for a script. A row is one system with one number of streams;
// its figures are medians over the rounds, with the smallest and the largest beside them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "nvr/error.h"

namespace nvr::bench {

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};

[[nodiscard]] Spread spread_of(std::vector<double> values);                   // of at least one
[[nodiscard]] double percentile_of(std::vector<double> values, double part);  // 0..1, of at least one

struct Latency {
  double p50_us = 0;
  double p99_us = 0;
};

struct Row {
  std::string scenario;
  std::string system;
  std::size_t streams = 0;
  Spread gb_per_s;
  Spread cpu_s_per_gb;
  Spread ops_per_s;
  std::optional<Latency> open;  // from open to the first chunk's bytes, where it was measured
};

// A ratio between two systems that a release must reach.
struct Target {
  std::string what;
  double ratio = 0;
  bool at_least = true;  // otherwise at most
  double bound = 0;
  bool strict = false;  // the bound itself does not do

  [[nodiscard]] bool met() const;
};

[[nodiscard]] const Row* find_row(const std::vector<Row>& rows, std::string_view system, std::size_t streams);

// Ratio columns are "this row / the reference's row with as many streams", of medians.
void print_table(const std::vector<Row>& rows, const std::vector<std::string>& references);
void print_targets(const std::vector<Target>& targets);
[[nodiscard]] Result<void> write_json(const std::vector<Row>& rows, const std::string& path);

}  // namespace nvr::bench
