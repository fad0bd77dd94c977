// What a scenario has found, for a person and for a script. A row is one system with one number of streams;
// its figures are medians over the rounds, with the smallest and the largest beside them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/bench/histogram.h"
#include "tools/bench/measure.h"

namespace nvr::bench {

// Everything that was measured for one row, over the rounds.
struct Samples {
  std::vector<double> gb_per_s = {};
  std::vector<double> cpu_s_per_gb = {};
  std::vector<double> ops_per_s = {};
  Histogram ns = {};
  std::vector<std::pair<std::string, std::vector<double>>> figures = {};  // that only some scenarios have

  void add(const Flow& flow);
  void add(std::string_view figure, double value);  // named as in JSON: "jain"
  [[nodiscard]] bool empty() const { return gb_per_s.empty() && ns.count() == 0 && figures.empty(); }
};

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;  // 0: has not been measured
};

struct Latency {
  double p50_us = 0;
  double p99_us = 0;
  double p999_us = 0;  // 0: too few were measured
};

struct Row {
  std::string scenario;
  std::string part;  // of the scenario: "16 processes"; empty where it has only one
  std::string system;
  std::size_t streams = 0;
  Spread gb_per_s = {};
  Spread cpu_s_per_gb = {};
  Spread ops_per_s = {};
  std::optional<Latency> latency = {};
  std::vector<std::pair<std::string, double>> figures = {};
};

[[nodiscard]] Row to_row(std::string_view scenario, std::string part, std::string system, std::size_t streams,
                         const Samples& samples);
// Jain's index of what each has got: 1 when all have got the same.
[[nodiscard]] double fairness_of(const std::vector<double>& shares);

// A ratio between two systems, or a figure, that a release must reach.
struct Target {
  enum class Bound { kAtLeast, kAtMost, kBelow };
  std::string what;
  Bound bound = Bound::kAtLeast;
  double required = 0;
  double measured = 0;

  [[nodiscard]] bool met() const;
};

// Compares the rows of one of our systems with what is required of it.
class Referee {
 public:
  Referee(const std::vector<Row>& rows, std::string ours, std::vector<Target>& targets)
      : rows_(rows), ours_(std::move(ours)), targets_(targets) {}

  [[nodiscard]] const std::vector<Row>& rows() const { return rows_; }
  // A figure by its name in JSON; not a number where there is no such row or figure.
  [[nodiscard]] double value(std::string_view system, std::size_t streams, std::string_view figure,
                             std::string_view part = {}) const;
  [[nodiscard]] double ours(std::size_t streams, std::string_view figure, std::string_view part = {}) const {
    return value(ours_, streams, figure, part);
  }
  [[nodiscard]] const std::string& our_name() const { return ours_; }
  // What was measured must be so. What was not (it is not a number) is not required.
  void at_least(double bound, std::string_view what, double measured) {
    add(Target::Bound::kAtLeast, bound, what, measured);
  }
  void at_most(double bound, std::string_view what, double measured) {
    add(Target::Bound::kAtMost, bound, what, measured);
  }
  void below(double bound, std::string_view what, double measured) {
    add(Target::Bound::kBelow, bound, what, measured);
  }

 private:
  void add(Target::Bound bound, double required, std::string_view what, double measured);

  const std::vector<Row>& rows_;
  std::string ours_;
  std::vector<Target>& targets_;
};

// Without the columns that no row has anything in. Ratio columns are "this row / the reference's row of the
// same part with as many streams", of medians.
[[nodiscard]] std::string table_of(const std::vector<Row>& rows, const std::vector<std::string>& references);
void print_targets(const std::vector<Target>& targets);
// An object for each row.
void append_json(const std::vector<Row>& rows, nlohmann::ordered_json& list);

}  // namespace nvr::bench
