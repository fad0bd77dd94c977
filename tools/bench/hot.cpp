// Scenario "hot": recordings that are in the page cache, so that what is measured is the way from there to
// the consumer. Systems take turns (A B C A B C ...), so that whatever else the machine does hits all of
// them.
#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <thread>

#include "tools/bench/measure.h"
#include "tools/bench/scenario.h"
#include "tools/bench/scratch.h"

namespace nvr::bench {
namespace {

using MakeSystem = Result<std::unique_ptr<System>> (*)(const SystemSetup&);
using Systems = std::vector<std::unique_ptr<System>>;

constexpr std::array<MakeSystem, 4> kSystems = {make_pread_system, make_seed_system, make_unix_socket_system,
                                                make_nvr_mmap_system};
constexpr std::array<std::size_t, 3> kStreamCounts = {1, 4, 16};
constexpr std::size_t kLeastOpens = 420;  // of each system, over all rounds
constexpr auto kOpenPause = std::chrono::milliseconds(1);

// Everything that was measured of one system with one number of streams.
struct Samples {
  std::vector<double> gb_per_s;
  std::vector<double> cpu_s_per_gb;
  std::vector<double> chunks_per_s;
  std::vector<double> open_us;

  void add(const Flow& flow) {
    gb_per_s.push_back(flow.gb_per_s);
    cpu_s_per_gb.push_back(flow.cpu_s_per_gb);
    chunks_per_s.push_back(flow.chunks_per_s);
  }
};

Result<Systems> make_systems(const SystemSetup& setup) {
  Systems systems;
  for (const MakeSystem make : kSystems) {
    auto system = make(setup);
    if (!system) return tl::unexpected(system.error());
    systems.push_back(std::move(*system));
  }
  return systems;
}

// Every system once, not recorded: pages are in the cache, buffers and slots have been touched.
Result<void> warm_up(const Systems& systems, const FileSet& files) {
  for (const auto& system : systems)
    if (const auto flow = measure_flow(*system, files, {.streams = kMaxStreams}); !flow)
      return tl::unexpected(flow.error());
  return {};
}

// One round: each system in turn. Opens are measured with one stream only.
Result<void> run_round(const Systems& systems, const FileSet& files, std::size_t streams,
                       const BenchOptions& options, std::vector<Samples>& samples) {
  for (std::size_t i = 0; i < systems.size(); ++i) {
    if (interrupted()) return fail(Code::kCancelled, "interrupted");
    const auto flow = measure_flow(*systems[i], files,
                                   {.streams = streams,
                                    .consumers = options.thread_per_stream ? streams : 1,
                                    .at_least = options.run_time});
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

Row to_row(const System& system, std::size_t streams, const Samples& samples) {
  Row row = {.scenario = "hot",
             .system = std::string(system.name()),
             .streams = streams,
             .gb_per_s = spread_of(samples.gb_per_s),
             .cpu_s_per_gb = spread_of(samples.cpu_s_per_gb),
             .ops_per_s = spread_of(samples.chunks_per_s),
             .open = std::nullopt};
  if (!samples.open_us.empty())
    row.open = Latency{.p50_us = percentile_of(samples.open_us, 0.5),
                       .p99_us = percentile_of(samples.open_us, 0.99)};
  return row;
}

double ratio(double value, double reference) {
  return reference > 0 ? value / reference : 0;
}

std::vector<Target> targets_of(const std::vector<Row>& rows, const std::string& system) {
  std::vector<Target> targets;
  for (const std::size_t streams : kStreamCounts) {
    const Row* const ours = find_row(rows, system, streams);
    const Row* const pread = find_row(rows, "pread", streams);
    const Row* const seed = find_row(rows, "seed", streams);
    if (ours == nullptr || pread == nullptr || seed == nullptr) continue;
    const auto add = [&](std::string_view what, double value, double reference, bool at_least, double bound,
                         bool strict = false) {
      targets.push_back(
          {.what = fmt::format("{:>2} stream{} {} {}", streams, streams == 1 ? ": " : "s:", system, what),
           .ratio = ratio(value, reference),
           .at_least = at_least,
           .bound = bound,
           .strict = strict});
    };
    if (streams == 1) add("GB/s / pread", ours->gb_per_s.median, pread->gb_per_s.median, true, 1);
    if (streams == 1) add("GB/s / seed", ours->gb_per_s.median, seed->gb_per_s.median, true, 10);
    if (streams == 16) add("GB/s / seed", ours->gb_per_s.median, seed->gb_per_s.median, true, 3);
    add("CPU s/GB / pread", ours->cpu_s_per_gb.median, pread->cpu_s_per_gb.median, false, 1.6);
    add("CPU s/GB / seed", ours->cpu_s_per_gb.median, seed->cpu_s_per_gb.median, false, 1, true);
    if (ours->open && seed->open)
      add("open to first chunk, p50 / seed", ours->open->p50_us, seed->open->p50_us, false, 2);
  }
  return targets;
}

void print_heading(const BenchOptions& options) {
  utsname machine = {};
  uname(&machine);
  fmt::print(
      "hot: {} files of {} MiB in the page cache, {} rounds, {} CPUs, Linux {}\n"
      "     {}, every cache line read; CPU is of all processes together;\n"
      "     open: from open() to the bytes of the first chunk, everybody asleep before\n\n",
      options.files.count, options.files.bytes >> 20, options.rounds, std::thread::hardware_concurrency(),
      machine.release,
      options.thread_per_stream ? "a consumer thread for each stream"
                                : "one consumer thread, streams in turn");
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
  const auto systems = make_systems({.files = *files, .scratch = scratch->path(), .daemon = options.daemon});
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
      findings.rows.push_back(to_row(*(*systems)[i], streams, samples[i]));
  }
  findings.targets = targets_of(findings.rows, "nvr_mmap");
  const auto foreign_cpus = foreign->cpus();
  if (!foreign_cpus) return tl::unexpected(foreign_cpus.error());
  findings.foreign_cpus = *foreign_cpus;
  return findings;
}

}  // namespace nvr::bench
