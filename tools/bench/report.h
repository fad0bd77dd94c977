// What a scenario has found, for a person and for a script. A row is one system with one number of streams;
// its figures are medians over the rounds, with the smallest and the largest beside them.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
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
  double p999_us = 0;  // 0: too few were measured
};

// What only some scenarios have.
struct Figure {
  std::string name;  // as in JSON: "jain"
  double value = 0;
};

// A Spread of zeros has not been measured.
struct Row {
  std::string scenario;
  std::string part = {};  // of the scenario: "16 processes"; empty where it has only one
  std::string system;
  std::size_t streams = 0;
  Spread gb_per_s = {};
  Spread cpu_s_per_gb = {};
  Spread ops_per_s = {};
  std::optional<Latency> latency = {};  // hot: from open to the first chunk's bytes
  std::vector<Figure> figures = {};
};

// A ratio between two systems, or a figure, that a release must reach.
struct Target {
  std::string what;
  double measured = 0;
  bool at_least = true;  // otherwise at most
  double bound = 0;
  bool strict = false;  // the bound itself does not do

  [[nodiscard]] bool met() const;
};

// Null: there is none.
[[nodiscard]] const Row* find_row(const std::vector<Row>& rows, std::string_view system, std::size_t streams,
                                  std::string_view part = {});

// Ratio columns are "this row / the reference's row with as many streams", of medians.
void print_table(const std::vector<Row>& rows, const std::vector<std::string>& references);
// Without ratios, for scenarios whose parts are different questions.
void print_plain_table(const std::vector<Row>& rows);
void print_targets(const std::vector<Target>& targets);
// An object for each row.
void append_json(const std::vector<Row>& rows, nlohmann::ordered_json& list);

}  // namespace nvr::bench
