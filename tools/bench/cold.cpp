// Scenario "cold": recordings that are on the disk only, so that what is measured is how well each system
// keeps the disk busy. Before each measurement everything is dropped from the page cache.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "tools/bench/compare.h"
#include "tools/bench/fio.h"
#include "tools/bench/scratch.h"

namespace nvr::bench {
namespace {

constexpr std::array<MakeSystem, 4> kSystems = {make_pread_system, make_seed_system, make_nvr_mmap_system,
                                                make_nvr_io_uring_system};
constexpr std::array<std::size_t, 2> kStreamCounts = {1, 16};
constexpr double kNearTheBest = 0.95;

struct Measured {
  std::string name;
  Samples samples;
};

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

// One round: each system reads `streams` files once, and then fio does.
Result<void> run_round(const Systems& systems, const FileSet& files, std::size_t streams,
                       const BenchOptions& options, std::vector<Measured>& measured) {
  for (std::size_t i = 0; i <= systems.size(); ++i) {
    if (interrupted()) return fail(Code::kCancelled, "interrupted");
    if (auto dropped = drop_files(files, streams); !dropped) return dropped;
    if (i == systems.size()) {
      if (const auto flow = run_fio(files, streams)) measured[i].samples.add(*flow);
      continue;
    }
    const auto flow =
        measure_flow(*systems[i], files,
                     {.streams = streams, .consumers = options.one_consumer ? 1 : streams, .at_least = {}});
    if (!flow) return tl::unexpected(flow.error());
    measured[i].samples.add(*flow);
  }
  return {};
}

void add_targets(const std::vector<Row>& rows, std::vector<Target>& targets) {
  for (const std::size_t streams : kStreamCounts) {
    const Row* const ours = find_row(rows, "nvr_io_uring", streams);
    if (ours == nullptr) continue;
    double best = 0;
    for (const Row& row : rows)
      if (row.streams == streams) best = std::max(best, row.gb_per_s.median);
    targets.push_back({.what = name_of_target(streams, "nvr_io_uring", "GB/s / the best"),
                       .measured = ratio_of(ours->gb_per_s.median, best),
                       .at_least = true,
                       .bound = kNearTheBest});
  }
}

}  // namespace

Result<Findings> run_cold(const BenchOptions& options) {
  const auto scratch = ScratchDirectory::create(options.directory);
  if (!scratch) return tl::unexpected(scratch.error());
  const std::filesystem::path recordings = scratch->path() / "recordings";
  std::error_code error;
  if (!std::filesystem::create_directory(recordings, error))
    return fail_errno(error.value(), "cannot make " + recordings.string());
  fmt::print(
      "cold: {} files of {} MiB, dropped from the page cache before each measurement, {} rounds, {}\n"
      "      each stream reads one file; every cache line read; CPU is of all processes together\n\n",
      options.files.count, options.files.bytes >> 20, options.rounds, describe_machine());
  std::fflush(stdout);
  const auto files = FileSet::create(recordings, options.files);
  if (!files) return tl::unexpected(files.error());
  const auto systems = make_systems(kSystems, {.files = *files,
                                               .scratch = scratch->path(),
                                               .daemon = options.daemon,
                                               .device_kind = options.device_kind});
  if (!systems) return tl::unexpected(systems.error());

  const auto foreign = ForeignLoad::watch(*systems);
  if (!foreign) return tl::unexpected(foreign.error());
  Findings findings = {.rows = {}, .references = {"pread", "seed"}, .targets = {}};
  for (const std::size_t streams : kStreamCounts) {
    std::vector<Measured> measured;
    for (const auto& system : *systems)
      measured.push_back({.name = std::string(system->name()), .samples = {}});
    measured.push_back({.name = "fio", .samples = {}});
    for (std::size_t round = 0; round < options.rounds; ++round)
      if (auto done = run_round(*systems, *files, streams, options, measured); !done)
        return tl::unexpected(done.error());
    for (const Measured& one : measured)
      if (!one.samples.gb_per_s.empty())
        findings.rows.push_back(to_row("cold", one.name, streams, one.samples));
  }
  add_targets(findings.rows, findings.targets);
  const auto foreign_cpus = foreign->cpus();
  if (!foreign_cpus) return tl::unexpected(foreign_cpus.error());
  findings.foreign_cpus = *foreign_cpus;
  return findings;
}

}  // namespace nvr::bench
