// Scenario "hot": recordings that are in the page cache, so that what is measured is the way from there to
// the consumer. Systems take turns (A B C A B C ...), so that whatever else the machine does hits all of
// them.
#include <fmt/format.h>

#include <array>

#include "tools/bench/compare.h"
#include "tools/bench/scratch.h"

namespace nvr::bench {
namespace {

constexpr std::array<MakeSystem, 5> kSystems = {make_pread_system, make_seed_system, make_unix_socket_system,
                                                make_nvr_mmap_system, make_nvr_io_uring_system};
constexpr std::array<std::size_t, 3> kStreamCounts = {1, 4, 16};
constexpr std::size_t kLeastOpens = 420;  // of each system, over all rounds
constexpr auto kOpenPause = std::chrono::milliseconds(1);

// Every system once, not recorded: pages are in the cache, buffers and slots have been touched.
Result<void> warm_up(const Systems& systems, const FileSet& files) {
  for (const auto& system : systems)
    if (const auto flow = measure_flow(*system, files, {.streams = kUsualStreams}); !flow)
      return tl::unexpected(flow.error());
  return {};
}

// One round: each system in turn. Opens are measured with one stream only.
Result<void> run_round(const Systems& systems, const FileSet& files, std::size_t streams,
                       const BenchOptions& options, std::vector<Samples>& samples) {
  for (std::size_t i = 0; i < systems.size(); ++i) {
    if (interrupted()) return fail(Code::kCancelled, "interrupted");
    const auto flow = measure_flow(
        *systems[i], files,
        {.streams = streams, .consumers = options.one_consumer ? 1 : streams, .at_least = options.run_time});
    if (!flow) return tl::unexpected(flow.error());
    samples[i].add(*flow);
  }
  if (streams != 1) return {};
  const std::size_t opens = (kLeastOpens + options.rounds - 1) / options.rounds;
  for (std::size_t i = 0; i < systems.size(); ++i) {
    const auto us = measure_opens(*systems[i], files, opens, kOpenPause);
    if (!us) return tl::unexpected(us.error());
    samples[i].open_us.insert(samples[i].open_us.end(), us->begin(), us->end());
  }
  return {};
}

void add_targets(const std::vector<Row>& rows, const std::string& system, std::vector<Target>& targets) {
  for (const std::size_t streams : kStreamCounts) {
    const Row* const ours = find_row(rows, system, streams);
    const Row* const mmap = find_row(rows, "nvr_mmap", streams);
    const Row* const pread = find_row(rows, "pread", streams);
    const Row* const seed = find_row(rows, "seed", streams);
    if (ours == nullptr || mmap == nullptr || pread == nullptr || seed == nullptr) continue;
    const auto at_least = [&](std::string_view what, double value, double reference, double bound) {
      targets.push_back({.what = name_of_target(streams, system, what),
                         .ratio = ratio_of(value, reference),
                         .at_least = true,
                         .bound = bound});
    };
    const auto at_most = [&](std::string_view what, double value, double reference, double bound,
                             bool strict = false) {
      targets.push_back({.what = name_of_target(streams, system, what),
                         .ratio = ratio_of(value, reference),
                         .at_least = false,
                         .bound = bound,
                         .strict = strict});
    };
    if (streams == 1) at_least("GB/s / pread", ours->gb_per_s.median, pread->gb_per_s.median, 1);
    if (streams == 1) at_least("GB/s / seed", ours->gb_per_s.median, seed->gb_per_s.median, 10);
    if (streams == 16) at_least("GB/s / seed", ours->gb_per_s.median, seed->gb_per_s.median, 3);
    at_most("CPU s/GB / pread", ours->cpu_s_per_gb.median, pread->cpu_s_per_gb.median, 1.6);
    at_most("CPU s/GB / seed", ours->cpu_s_per_gb.median, seed->cpu_s_per_gb.median, 1, true);
    if (ours != mmap)
      at_most("CPU s/GB / nvr_mmap", ours->cpu_s_per_gb.median, mmap->cpu_s_per_gb.median, 1.3);
    if (ours->open && seed->open)
      at_most("open to first chunk, p50 / seed", ours->open->p50_us, seed->open->p50_us, 2);
  }
}

void print_heading(const BenchOptions& options) {
  fmt::print(
      "hot: {} files of {} MiB in the page cache, {} rounds, {}\n"
      "     {}, every cache line read; CPU is of all processes together;\n"
      "     open: from open() to the bytes of the first chunk, everybody asleep before\n\n",
      options.files.count, options.files.bytes >> 20, options.rounds, describe_machine(),
      options.one_consumer ? "one consumer thread, streams in turn" : "a consumer thread for each stream");
  std::fflush(stdout);
}

}  // namespace

Result<Findings> run_hot(const BenchOptions& options) {
  const auto scratch = ScratchDirectory::create(options.directory);
  if (!scratch) return tl::unexpected(scratch.error());
  const std::filesystem::path recordings = scratch->path() / "recordings";
  std::error_code error;
  if (!std::filesystem::create_directory(recordings, error))
    return fail_errno(error.value(), "cannot make " + recordings.string());
  print_heading(options);
  const auto files = FileSet::create(recordings, options.files);
  if (!files) return tl::unexpected(files.error());
  const auto systems = make_systems(kSystems, {.files = *files,
                                               .scratch = scratch->path(),
                                               .daemon = options.daemon,
                                               .device_kind = options.device_kind});
  if (!systems) return tl::unexpected(systems.error());
  if (auto warm = warm_up(*systems, *files); !warm) return tl::unexpected(warm.error());

  const auto foreign = ForeignLoad::watch(*systems);
  if (!foreign) return tl::unexpected(foreign.error());
  Findings findings = {.rows = {}, .references = {"pread", "seed"}, .targets = {}};
  for (const std::size_t streams : kStreamCounts) {
    std::vector<Samples> samples(systems->size());
    for (std::size_t round = 0; round < options.rounds; ++round)
      if (auto done = run_round(*systems, *files, streams, options, samples); !done)
        return tl::unexpected(done.error());
    for (std::size_t i = 0; i < systems->size(); ++i)
      findings.rows.push_back(to_row("hot", (*systems)[i]->name(), streams, samples[i]));
  }
  for (const char* const system : {"nvr_mmap", "nvr_io_uring"})
    add_targets(findings.rows, system, findings.targets);
  const auto foreign_cpus = foreign->cpus();
  if (!foreign_cpus) return tl::unexpected(foreign_cpus.error());
  findings.foreign_cpus = *foreign_cpus;
  return findings;
}

}  // namespace nvr::bench
