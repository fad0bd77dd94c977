// Scenario "cold": recordings that are on the disk only, so that what is measured is how well each system
// keeps the disk busy. Before each measurement everything is dropped from the page cache.
#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "tools/bench/fio.h"
#include "tools/bench/scenario.h"

namespace nvr::bench {
namespace {

constexpr std::array kSystems = {make_pread_system, make_seed_system, make_nvr_mmap_system,
                                 make_nvr_io_uring_system};
constexpr std::array<std::size_t, 2> kStreamCounts = {1, 16};

// Memory that is free goes back to the host of a virtual machine two seconds later (free page reporting), and
// who reads into it then waits until the host has given it again: 1 GB/s or so. So each measurement begins in
// the same way: the files are read into memory, stay there until all else has been reported, and are dropped:
// what comes free then is still the machine's own, and next to be used.
constexpr auto kPageReporting = std::chrono::milliseconds(2300);

Result<void> drop_files(const FileSet& files, std::size_t streams) {
  if (auto dropped = files.drop_from_cache(); !dropped) return dropped;
  if (auto read = files.read_into_cache(streams); !read) return read;
  std::this_thread::sleep_for(kPageReporting);
  return files.drop_from_cache();
}

// Each system reads `streams` files once, and then fio does.
Result<std::vector<Turn>> turns_of(const SystemSetup& setup, const BenchOptions& options) {
  const FileSet& files = setup.files;
  const auto systems = make_systems(kSystems, setup);
  if (!systems) return tl::unexpected(systems.error());
  std::vector<Turn> turns;
  for (const std::size_t streams : kStreamCounts) {
    add_turns(turns, *systems, "", streams, [&, streams](System& system, Samples& samples) -> Result<void> {
      if (auto dropped = drop_files(files, streams); !dropped) return dropped;
      const auto flow =
          measure_flow(system, files, {.streams = streams, .consumers = options.consumers(streams)});
      if (!flow) return tl::unexpected(flow.error());
      samples.add(*flow);
      return {};
    });
    turns.push_back(
        {.system = "fio", .streams = streams, .measure = [&, streams](Samples& samples) -> Result<void> {
           if (auto dropped = drop_files(files, streams); !dropped) return dropped;
           if (const auto flow = run_fio(files, streams)) samples.add(*flow);
           return {};
         }});
  }
  return turns;
}

void require(Referee& referee) {
  if (referee.our_name() != "nvr_io_uring") return;
  for (const std::size_t streams : kStreamCounts) {
    double best = 0;
    for (const Row& row : referee.rows())
      if (row.streams == streams) best = std::max(best, row.gb_per_s.median);
    referee.at_least(0.95, describe_streams(streams) + ", GB/s / the best",
                     referee.ours(streams, "gb_per_s") / best);
  }
}

}  // namespace

Plan plan_cold(const BenchOptions& options) {
  return {.heading = fmt::format(
              "cold: {}, dropped from the page cache before each measurement, {}\n"
              "      each stream reads one file; every cache line read; CPU is of all processes together",
              describe(options.files), describe_run(options)),
          .files = options.files,
          .blocks = {{.rounds = options.rounds,
                      .round_s = 3.5 * static_cast<double>(kStreamCounts.size() * (kSystems.size() + 1)),
                      .set_up = [&](const SystemSetup& setup) { return turns_of(setup, options); }}},
          .references = {"pread", "seed"},
          .require = require};
}

}  // namespace nvr::bench
