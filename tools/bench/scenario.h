// A scenario is one question put to several systems in one run. It says what it measures and what it requires
// (a Plan); run.cpp does what all scenarios have in common. Each scenario has a file of its own and a line in
// scenarios.
#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "nvr/error.h"
#include "tools/bench/files.h"
#include "tools/bench/measure.h"
#include "tools/bench/report.h"
#include "tools/bench/system.h"

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

  [[nodiscard]] std::size_t consumers(std::size_t streams) const { return one_consumer ? 1 : streams; }
};

// One system's turn in a round. All that it adds to samples of the same part, system and number of streams
// makes one row; if nothing is added there is no row.
struct Turn {
  std::string part = {};  // of the scenario; empty where it has only one
  std::string system;
  std::size_t streams = 1;
  std::function<Result<void>(Samples&)> measure;
  std::function<Result<void>()> warm_up = {};  // instead of `measure`, in rounds that do not count
};

// Turns that follow each other, round after round (A B C A B C ...), so that whatever else the machine does
// hits all systems alike.
struct Block {
  std::size_t warm_up_rounds = 0;
  std::size_t rounds = 1;
  double round_s = 1;  // how long one takes, roughly: by this progress is judged
  // Makes the systems. They live as long as the turns, which go before the next block begins.
  std::function<Result<std::vector<Turn>>(SystemSetup)> set_up;
};

struct Plan {
  std::string heading;
  FileShape files = {};  // that all blocks read, in the page cache; none: the blocks make their own
  std::vector<Block> blocks = {};
  std::vector<std::string> references = {};  // systems that others are compared to in the table
  std::function<void(Referee&)> require = {};
  bool watches_others = true;  // false: what works for the scenario does not look like its own
};

struct Scenario {
  std::string_view name;
  Plan (*plan)(const BenchOptions&);
};

[[nodiscard]] Plan plan_hot(const BenchOptions& options);         // recordings in the page cache
[[nodiscard]] Plan plan_latency(const BenchOptions& options);     // from the question to a chunk
[[nodiscard]] Plan plan_small(const BenchOptions& options);       // small ranges of many
[[nodiscard]] Plan plan_scale(const BenchOptions& options);       // many streams of many processes
[[nodiscard]] Plan plan_event_loop(const BenchOptions& options);  // many streams in one thread
[[nodiscard]] Plan plan_stream_out(const BenchOptions& options);  // out through a socket
[[nodiscard]] Plan plan_cold(const BenchOptions& options);        // recordings that are on the disk only
[[nodiscard]] Plan plan_disk(const BenchOptions& options);        // on a modelled spinning disk. Root only

inline constexpr std::array kScenarios = {Scenario{"hot", plan_hot},
                                          Scenario{"latency", plan_latency},
                                          Scenario{"small", plan_small},
                                          Scenario{"scale", plan_scale},
                                          Scenario{"event-loop", plan_event_loop},
                                          Scenario{"stream-out", plan_stream_out},
                                          Scenario{"cold", plan_cold},
                                          Scenario{"disk", plan_disk}};

// Rounds that do not count. A daemon keeps a map of what has been read three times, and the pages of maps and
// windows are filled in as they are touched: the fifth time a system is as it stays.
inline constexpr std::size_t kWarmUpRounds = 4;

// "16 recordings of 64 MiB", "16 streams", "7 rounds, 2 CPUs, Linux 6.18".
[[nodiscard]] std::string describe(const FileShape& files);
[[nodiscard]] std::string describe_streams(std::size_t streams);
[[nodiscard]] std::string describe_run(const BenchOptions& options);

using Systems = std::vector<std::shared_ptr<System>>;

// In the order of `makers`; without nvr_io_uring where io_uring does not work.
[[nodiscard]] Result<Systems> make_systems(std::span<const MakeSystem> makers, const SystemSetup& setup);
// A turn for each of them.
void add_turns(std::vector<Turn>& turns, const Systems& systems, std::string_view part, std::size_t streams,
               const std::function<Result<void>(System&, Samples&)>& measure);
// Where io_uring does not work nvr_io_uring is left out: no error, but a line that says why, once.
[[nodiscard]] Result<void> unless_refused(Result<void> with_io_uring);
// Does `make` for the engines "mmap" and "io_uring".
[[nodiscard]] Result<void> for_each_engine(const std::function<Result<void>(const std::string&)>& make);

// Somebody pressed ^C: the run ends between two turns, so that nothing is left behind.
[[nodiscard]] bool interrupted();

}  // namespace nvr::bench
