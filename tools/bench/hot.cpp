// Scenario "hot": recordings that are in the page cache, so that what is measured is the way from there to
// the consumer. Systems take turns (A B C A B C ...), so that whatever else the machine does hits all of
// them.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "tools/bench/client_crew.h"
#include "tools/bench/compare.h"
#include "tools/bench/hot_files.h"
#include "tools/bench/nvr_system.h"

namespace nvr::bench {
namespace {

constexpr std::array kSystems = {make_memcpy_system,      make_pread_system,       make_thread_pool_system,
                                 make_seed_system,        make_unix_socket_system, make_nvr_mmap_system,
                                 make_nvr_io_uring_system};
// A daemon's windows of 64 streams take no more memory than those of 16: what it gives a client as it stands.
struct Group {
  std::size_t streams = kUsualStreams;  // most of the connection
  std::uint32_t slots = kSlotsPerStream;
  std::vector<std::size_t> counts = {};
};
constexpr std::size_t kMostStreams = 64;
constexpr std::uint32_t kSlotsOfMost = kSlotsPerStream * kUsualStreams / kMostStreams;
constexpr std::array<std::size_t, 4> kStreamCounts = {1, 4, kUsualStreams, kMostStreams};
constexpr std::size_t kClientProcesses = 16;
constexpr const char* kProcesses = "16 processes";
constexpr std::size_t kLeastOpens = 420;  // of each system, over all rounds
constexpr auto kOpenPause = std::chrono::milliseconds(1);
constexpr auto kLeastWindow = std::chrono::milliseconds(20);

// The system has read every file as often as it takes: with no less streams than files, or some would not be
// read. Not only once before all: a daemon's maps are gone when the others' turns have taken longer than it
// keeps them (daemon/file_maps.h).
Result<void> warm_up(System& system, const FileSet& files, std::size_t streams) {
  const std::size_t passes = std::max<std::size_t>(1, kWarmUpRounds * files.count() / streams);
  for (std::size_t pass = 0; pass < passes; ++pass) {
    if (interrupted()) return fail(Code::kCancelled, "interrupted");
    if (const auto flow = measure_flow(system, files, {.streams = streams, .consumers = streams}); !flow)
      return tl::unexpected(flow.error());
  }
  return {};
}

// The more streams, the longer: that they do not end at the same time shall not count.
std::chrono::nanoseconds time_of(const BenchOptions& options, std::size_t streams) {
  return options.run_time * static_cast<std::int64_t>(1 + streams / kUsualStreams);
}

// One round: each system in turn. Opens are measured with one stream only.
Result<void> run_round(const Systems& systems, const FileSet& files, std::size_t streams,
                       std::size_t most_streams, const BenchOptions& options, std::vector<Samples>& samples) {
  for (std::size_t i = 0; i < systems.size(); ++i) {
    if (auto warm = warm_up(*systems[i], files, most_streams); !warm) return warm;
    const auto flow = measure_flow(*systems[i], files,
                                   {.streams = streams,
                                    .consumers = options.one_consumer ? 1 : streams,
                                    .at_least = time_of(options, streams)});
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

// A stream in each of many processes.
struct ProcessContestant {
  std::string name;
  ClientCrew crew;
};

Result<std::vector<Row>> run_processes(std::vector<ProcessContestant>& contestants,
                                       const BenchOptions& options) {
  std::vector<Samples> samples(contestants.size());
  for (std::size_t round = 0; round < kWarmUpRounds + options.rounds; ++round)
    for (std::size_t i = 0; i < contestants.size(); ++i) {
      if (interrupted()) return fail(Code::kCancelled, "interrupted");
      const auto result = contestants[i].crew.measure(
          std::max<std::chrono::nanoseconds>(time_of(options, kClientProcesses), kLeastWindow));
      if (!result) return tl::unexpected(result.error());
      if (round >= kWarmUpRounds) samples[i].add(result->flow);
    }
  std::vector<Row> rows;
  for (std::size_t i = 0; i < contestants.size(); ++i) {
    rows.push_back(to_row("hot", contestants[i].name, kClientProcesses, samples[i]));
    rows.back().part = kProcesses;
  }
  return rows;
}

// The children of a crew of each system, and the daemons that they are clients of.
Result<std::vector<Row>> measure_processes(SystemSetup setup, const BenchOptions& options) {
  setup.streams = 1;
  setup.daemon_name = "_crew";
  std::vector<DaemonProcess> daemons;
  std::vector<ProcessContestant> contestants;
  const auto add = [&](std::string name, CrewSetup crew_setup) -> Result<void> {
    auto crew = ClientCrew::start(setup.files, std::move(crew_setup));
    if (!crew) return tl::unexpected(crew.error());
    contestants.push_back({.name = std::move(name), .crew = std::move(*crew)});
    return {};
  };
  auto added =
      add("pread", {.processes = kClientProcesses, .make = [&] { return make_pread_system(setup); }});
  for (const std::string engine : {"mmap", "io_uring"}) {
    if (!added) return tl::unexpected(added.error());
    auto daemon = start_nvr_daemon(setup, engine);
    if (!daemon && engine == "io_uring") continue;  // has been said
    if (!daemon) return tl::unexpected(daemon.error());
    added = add("nvr_" + engine, {.processes = kClientProcesses,
                                  .make = [&] { return make_nvr_client_system(setup, engine); },
                                  .helpers = {daemon->pid()}});
    daemons.push_back(std::move(*daemon));
  }
  if (!added) return tl::unexpected(added.error());
  return run_processes(contestants, options);
}

// What is compared with what.
struct Compared {
  const Row& ours;
  const Row& pread;
  const Row& seed;
  std::vector<Target>& targets;

  using Figure = double (*)(const Row&);

  void at_least(std::string_view what, Figure figure, const Row& reference, double bound) const {
    add(what, figure, reference, bound).at_least = true;
  }
  Target& at_most(std::string_view what, Figure figure, const Row& reference, double bound) const {
    Target& target = add(what, figure, reference, bound);
    target.at_least = false;
    return target;
  }
  void add_all() const {
    const Figure speed = [](const Row& row) { return row.gb_per_s.median; };
    const Figure cpu = [](const Row& row) { return row.cpu_s_per_gb.median; };
    const Figure open_p50 = [](const Row& row) { return row.latency ? row.latency->p50_us : 0; };
    if (ours.streams == 1) at_least("GB/s / pread", speed, pread, 1.2);
    if (ours.streams == 1) at_least("GB/s / seed", speed, seed, 12);
    if (ours.streams == 16) at_least("GB/s / seed", speed, seed, 4);
    at_most("CPU s/GB / pread", cpu, pread, ours.streams == 16 ? 1.35 : 1.6);
    at_most("CPU s/GB / seed", cpu, seed, 1).strict = true;
    if (ours.latency && seed.latency) at_most("open to first chunk, p50 / seed", open_p50, seed, 2);
  }

 private:
  Target& add(std::string_view what, Figure figure, const Row& reference, double bound) const {
    return targets.emplace_back(Target{.what = name_of_target(ours.streams, ours.system, what),
                                       .measured = ratio_of(figure(ours), figure(reference)),
                                       .bound = bound});
  }
};

void add_many_streams(const std::vector<Row>& rows, const std::string& system, std::vector<Target>& targets) {
  const auto of_usual = [&](std::string_view which) {
    const Row* const most = find_row(rows, which, kMostStreams);
    const Row* const usual = find_row(rows, which, kUsualStreams);
    return most == nullptr || usual == nullptr ? 0 : ratio_of(most->gb_per_s.median, usual->gb_per_s.median);
  };
  targets.push_back({.what = name_of_target(kMostStreams, system, "GB/s / with 16 streams"),
                     .measured = of_usual(system),
                     .bound = 0.9});
}

void add_targets(const std::vector<Row>& rows, const std::string& system, std::vector<Target>& targets) {
  for (const std::size_t streams : kStreamCounts) {
    const Row* const ours = find_row(rows, system, streams);
    const Row* const pread = find_row(rows, "pread", streams);
    const Row* const seed = find_row(rows, "seed", streams);
    if (ours == nullptr || pread == nullptr || seed == nullptr) continue;
    Compared({.ours = *ours, .pread = *pread, .seed = *seed, .targets = targets}).add_all();
    if (streams == kMostStreams) add_many_streams(rows, system, targets);
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

// Systems of their own for each group, in turns.
Result<std::vector<Row>> run_group(SystemSetup setup, const Group& group, const BenchOptions& options) {
  setup.streams = group.streams;
  setup.slots = group.slots;
  const auto systems = make_systems(kSystems, setup);
  if (!systems) return tl::unexpected(systems.error());
  std::vector<Row> rows;
  for (const std::size_t streams : group.counts) {
    std::vector<Samples> samples(systems->size());
    for (std::size_t round = 0; round < options.rounds; ++round)
      if (auto done = run_round(*systems, setup.files, streams, group.streams, options, samples); !done)
        return tl::unexpected(done.error());
    for (std::size_t i = 0; i < systems->size(); ++i)
      rows.push_back(to_row("hot", (*systems)[i]->name(), streams, samples[i]));
  }
  return rows;
}

}  // namespace

Result<Findings> run_hot(const BenchOptions& options) {
  print_heading(options);
  const auto recordings = HotFiles::create(options);
  if (!recordings) return tl::unexpected(recordings.error());
  const SystemSetup setup = recordings->setup(options);
  const std::vector<Group> groups = {
      {.counts = {1, 4, kUsualStreams}},
      {.streams = kMostStreams, .slots = kSlotsOfMost, .counts = {kMostStreams}}};
  Findings findings = {.rows = {}, .references = {"pread", "seed"}, .targets = {}};
  const auto append = [&](Result<std::vector<Row>> rows) -> Result<void> {
    if (!rows) return tl::unexpected(rows.error());
    std::ranges::move(*rows, std::back_inserter(findings.rows));
    return {};
  };
  const auto foreign = ForeignLoad::watch_children();
  for (const Group& group : groups)
    if (auto done = append(run_group(setup, group, options)); !done) return tl::unexpected(done.error());
  if (auto done = append(measure_processes(setup, options)); !done) return tl::unexpected(done.error());
  findings.foreign_cpus = foreign.cpus().value_or(0);
  for (const char* const system : {"nvr_mmap", "nvr_io_uring"})
    add_targets(findings.rows, system, findings.targets);
  return findings;
}

}  // namespace nvr::bench
