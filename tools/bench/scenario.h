// A scenario: one question put to several systems in one run. Each has a file of its own and a line in the
// list in main.cpp.
#pragma once

#include <chrono>
#include <filesystem>
#include <vector>

#include "nvr/error.h"
#include "tools/bench/files.h"
#include "tools/bench/report.h"

namespace nvr::bench {

struct BenchOptions {
  std::filesystem::path directory;  // on the disk to use
  std::filesystem::path daemon;     // nvr-readerd
  std::size_t rounds = 7;
  std::chrono::milliseconds run_time{200};  // of one measurement, at least
  bool one_consumer = false;                // takes from all streams in turn; otherwise a thread for each
  std::string device_kind = "auto";         // for nvr-readerd
  FileShape files;
};

struct Findings {
  std::vector<Row> rows;
  std::vector<std::string> references;  // systems that others are compared to
  std::vector<Target> targets;
  double foreign_cpus = 0;  // how many CPUs the rest of the machine kept busy meanwhile
};

// Cached recordings.
[[nodiscard]] Result<Findings> run_hot(const BenchOptions& options);

// Recordings that are on the disk only.
[[nodiscard]] Result<Findings> run_cold(const BenchOptions& options);

// Somebody pressed ^C: a scenario gives up between two measurements, so that nothing is left behind.
[[nodiscard]] bool interrupted();

}  // namespace nvr::bench
