// Runs scenarios.
#pragma once

#include <optional>

#include "tools/bench/progress.h"
#include "tools/bench/scenario.h"

namespace nvr::bench {

// What a scenario has found.
struct Findings {
  std::vector<Row> rows;
  std::vector<std::string> references;
  std::vector<Target> targets;
  std::optional<double> foreign_cpus = {};  // how many CPUs the rest of the machine kept busy meanwhile
};

// How long it takes, roughly.
[[nodiscard]] double expected_s(const Plan& plan);
// Writes the recordings, lets the systems take their turns and collects the rows. Nothing of it is left.
[[nodiscard]] Result<Findings> run_scenario(std::string_view name, const Plan& plan,
                                            const BenchOptions& options, Progress& progress);
// Table and targets, to stdout.
void print_findings(const Findings& findings);

}  // namespace nvr::bench
