// A scenario: one question put to several systems in one run. Each has a file of its own and a line in the
// list in main.cpp.
#pragma once

#include <chrono>
#include <filesystem>
#include <vector>

#include "nvr/error.h"
#include "tools/bench/disk_report.h"
#include "tools/bench/files.h"
#include "tools/bench/report.h"

namespace nvr::bench {

// Of scenario "disk".
struct DiskOptions {
  std::filesystem::path script;  // tools/slow-disk
  std::vector<std::string> parts = {"throughput", "viewers", "first-chunk"};
  std::vector<std::size_t> streams = {1, 4, 16, 64};  // throughput
  std::vector<std::string> systems = {};              // empty: all
  unsigned read_ahead_kib = 128;                      // the kernel's for the disk
  double seconds = 12;                                // each measurement of throughput
  double viewer_seconds = 120;
  double first_chunk_seconds = 60;
};

struct BenchOptions {
  std::filesystem::path directory;  // on the disk to use
  std::filesystem::path daemon;     // nvr-readerd
  std::size_t rounds = 7;
  std::chrono::milliseconds run_time{200};  // of one measurement, at least
  bool one_consumer = false;                // takes from all streams in turn; otherwise a thread for each
  std::string device_kind = "auto";         // for nvr-readerd
  std::size_t client_processes = 200;       // scale: at most
  FileShape files;
  DiskOptions disk = {};
};

struct Findings {
  std::vector<Row> rows;
  std::vector<std::string> references;  // systems that others are compared to; none: a plain table
  std::vector<Target> targets;
  std::vector<DiskRow> disk = {};  // instead of rows: scenario "disk"
  double foreign_cpus = 0;         // how many CPUs the rest of the machine kept busy meanwhile
};

// Cached recordings.
[[nodiscard]] Result<Findings> run_hot(const BenchOptions& options);

// The same: from the question to a chunk.
[[nodiscard]] Result<Findings> run_latency(const BenchOptions& options);

// The same: small ranges of many.
[[nodiscard]] Result<Findings> run_small(const BenchOptions& options);

// The same: many streams of many processes.
[[nodiscard]] Result<Findings> run_scale(const BenchOptions& options);

// The same: many streams in one thread.
[[nodiscard]] Result<Findings> run_event_loop(const BenchOptions& options);

// The same: out through a socket.
[[nodiscard]] Result<Findings> run_stream_out(const BenchOptions& options);

// Recordings that are on the disk only.
[[nodiscard]] Result<Findings> run_cold(const BenchOptions& options);

// Recordings on a modelled spinning disk. Root only.
[[nodiscard]] Result<Findings> run_disk(const BenchOptions& options);

// Somebody pressed ^C: a scenario gives up between two measurements, so that nothing is left behind.
[[nodiscard]] bool interrupted();

}  // namespace nvr::bench
