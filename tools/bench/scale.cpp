// Scenario "scale": one daemon, and up to a thousand streams of two hundred client processes. All of them
// read as fast as they get recordings from the page cache: throughput and fairness. Then the daemon's own
// memory, and what it does while nobody asks for anything.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <thread>

#include "tools/bench/client_crew.h"
#include "tools/bench/compare.h"
#include "tools/bench/cpu_time.h"
#include "tools/bench/hot_files.h"
#include "tools/bench/nvr_system.h"
#include "tools/bench/process_facts.h"

namespace nvr::bench {
namespace {

struct Crowd {
  std::size_t processes = 1;
  std::size_t streams_each = 1;

  [[nodiscard]] std::size_t streams() const { return processes * streams_each; }
};
constexpr std::array kSmallerCrowds = {Crowd{1, 1}, Crowd{4, 4}, Crowd{40, 5}};
constexpr std::size_t kStreamsEach = 5;
constexpr std::uint32_t kSlots = 8;  // of each stream: half a gigabyte of windows in all
constexpr auto kIdleTime = std::chrono::seconds(4);
constexpr double kLeastOfSixteen = 0.8;
constexpr double kLeastJain = 0.95;
constexpr double kMostKib = 16;
constexpr double kMostSwitches = 0.5;  // a second: none, but for one that happened to be there

constexpr const char* kReading = "all read";
constexpr const char* kMemory = "memory";
constexpr const char* kIdle = "nobody reads";

// One system, and its crew.
struct Contestant {
  std::string name;
  ClientCrew crew;
  Samples samples = {};
  std::vector<double> jain = {};
};

struct Daemon {
  std::string engine;
  DaemonProcess process;
};

Crowd largest(const BenchOptions& options) {
  return {.processes = options.client_processes, .streams_each = kStreamsEach};
}

std::vector<Crowd> crowds_of(const BenchOptions& options) {
  std::vector<Crowd> crowds;
  for (const Crowd crowd : kSmallerCrowds)
    if (crowd.streams() < largest(options).streams()) crowds.push_back(crowd);
  crowds.push_back(largest(options));
  return crowds;
}

SystemSetup setup_of(const HotFiles& recordings, const BenchOptions& options, std::size_t streams) {
  SystemSetup setup = recordings.setup(options);
  setup.streams = streams;
  setup.slots = kSlots;
  return setup;
}

CrewSetup crew_of(const SystemSetup& setup, const Daemon& daemon, Crowd crowd) {
  return {.processes = crowd.processes,
          .streams_each = crowd.streams_each,
          .make = [setup, &daemon] { return make_nvr_client_system(setup, daemon.engine); },
          .helpers = {daemon.process.pid()}};
}

// The more streams, the longer the time, so that each has its turn many times.
std::chrono::nanoseconds window_of(const BenchOptions& options, Crowd crowd) {
  constexpr std::size_t kStreamsOfOneTime = 75;
  const auto least = std::max<std::chrono::nanoseconds>(options.run_time, std::chrono::milliseconds(200));
  return least * static_cast<std::int64_t>(1 + crowd.streams() / kStreamsOfOneTime);
}

Result<void> read_with(std::vector<Contestant>& contestants, const BenchOptions& options, Crowd crowd) {
  // A crowd reads every recording many times in a round.
  const std::size_t warm_up_rounds = crowd.streams() <= kUsualStreams ? kWarmUpRounds : 1;
  for (std::size_t round = 0; round < warm_up_rounds + options.rounds; ++round)
    for (Contestant& contestant : contestants) {
      if (interrupted()) return fail(Code::kCancelled, "interrupted");
      const auto result = contestant.crew.measure(window_of(options, crowd));
      if (!result) return tl::unexpected(result.error());
      if (round < warm_up_rounds) continue;
      contestant.samples.add(result->flow);
      contestant.jain.push_back(result->jain());
    }
  return {};
}

Result<std::vector<Row>> run_crowd(const std::vector<Daemon>& daemons, const HotFiles& recordings,
                                   const BenchOptions& options, Crowd crowd) {
  const SystemSetup setup = setup_of(recordings, options, crowd.streams_each);
  std::vector<Contestant> contestants;
  const auto add = [&](std::string name, CrewSetup crew_setup) -> Result<void> {
    auto crew = ClientCrew::start(recordings.files(), std::move(crew_setup));
    if (!crew) return tl::unexpected(crew.error());
    contestants.push_back({.name = std::move(name), .crew = std::move(*crew)});
    return {};
  };
  auto added =
      add("pread", {.processes = crowd.processes, .streams_each = crowd.streams_each, .make = [&setup] {
                      return make_pread_system(setup);
                    }});
  for (const Daemon& daemon : daemons)
    if (added) added = add("nvr_" + daemon.engine, crew_of(setup, daemon, crowd));
  if (!added) return tl::unexpected(added.error());
  if (auto read = read_with(contestants, options, crowd); !read) return tl::unexpected(read.error());
  std::vector<Row> rows;
  for (const Contestant& contestant : contestants) {
    rows.push_back(to_row("scale", contestant.name, crowd.streams(), contestant.samples));
    rows.back().part = kReading;
    rows.back().figures = {{"processes", static_cast<double>(crowd.processes)},
                           {"jain", spread_of(contestant.jain).median}};
  }
  return rows;
}

struct Idleness {
  double switches_per_s = 0;
  double cpu_ms_per_s = 0;
};

Result<Idleness> watch_idle(pid_t pid) {
  const auto sample = [&]() -> Result<std::pair<std::uint64_t, std::uint64_t>> {
    const auto switches = switches_of(pid);
    if (!switches) return tl::unexpected(switches.error());
    const auto cpu = cpu_ns_of(pid);
    if (!cpu) return tl::unexpected(cpu.error());
    return std::pair(*switches, *cpu);
  };
  const auto before = sample();
  if (!before) return tl::unexpected(before.error());
  std::this_thread::sleep_for(kIdleTime);
  const auto after = sample();
  if (!after) return tl::unexpected(after.error());
  const double seconds = std::chrono::duration<double>(kIdleTime).count();
  return Idleness{.switches_per_s = static_cast<double>(after->first - before->first) / seconds,
                  .cpu_ms_per_s = static_cast<double>(after->second - before->second) / 1e6 / seconds};
}

// What `after` has more than `before`, for each of `count`.
double share_of(double after, double before, std::size_t count) {
  return (after - before) / static_cast<double>(count);
}

// A new daemon: what it has and does without clients, with clients that ask for nothing, with streams that
// nobody reads, and with streams that all read.
Result<std::vector<Row>> look_at(const Daemon& daemon, const HotFiles& recordings,
                                 const BenchOptions& options) {
  const pid_t pid = daemon.process.pid();
  const auto memory = [&] { return memory_of(pid); };
  const auto alone = watch_idle(pid);
  if (!alone) return tl::unexpected(alone.error());
  const auto empty = memory();
  auto crew = ClientCrew::start(
      recordings.files(),
      crew_of(setup_of(recordings, options, largest(options).streams_each), daemon, largest(options)));
  if (!crew) return tl::unexpected(crew.error());
  std::this_thread::sleep_for(std::chrono::seconds(1));  // it fills windows when it has nothing else to do
  const auto connected = memory();
  const auto idle = watch_idle(pid);
  if (!idle) return tl::unexpected(idle.error());
  if (auto opened = crew->open_streams(); !opened) return tl::unexpected(opened.error());
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const auto open = memory();
  if (auto closed = crew->close_streams(); !closed) return tl::unexpected(closed.error());
  Result<MemoryUse> reading;
  const auto flow = crew->measure(std::chrono::milliseconds(500), [&] { reading = memory(); });
  if (!flow) return tl::unexpected(flow.error());
  for (const auto* const use : {&empty, &connected, &open, &std::as_const(reading)})
    if (!*use) return tl::unexpected(use->error());
  const std::size_t streams = largest(options).streams();
  Row row = {.scenario = "scale", .part = kMemory, .system = "nvr_" + daemon.engine, .streams = streams};
  row.figures = {
      {"empty_daemon_kib", empty->own_kib},
      {"idle_connection_kib", share_of(connected->own_kib, empty->own_kib, largest(options).processes)},
      {"idle_stream_kib", share_of(open->own_kib, empty->own_kib, streams)},
      {"active_stream_kib", share_of(reading->own_kib, empty->own_kib, streams)},
      {"window_kib_per_stream", share_of(reading->window_kib, empty->window_kib, streams)},
      {"page_table_kib_per_stream", share_of(reading->table_kib, empty->table_kib, streams)}};
  Row idle_row = {.scenario = "scale", .part = kIdle, .system = row.system, .streams = streams};
  idle_row.figures = {{"switches_per_s_without_clients", alone->switches_per_s},
                      {"switches_per_s", idle->switches_per_s},
                      {"cpu_ms_per_s_without_clients", alone->cpu_ms_per_s},
                      {"cpu_ms_per_s", idle->cpu_ms_per_s}};
  return std::vector<Row>{row, idle_row};
}

double figure_of(const Row* row, std::string_view name) {
  if (row == nullptr) return 0;
  const auto found = std::ranges::find(row->figures, name, &Figure::name);
  return found == row->figures.end() ? 0 : found->value;
}

void add_targets(const std::vector<Row>& rows, const std::string& system, const BenchOptions& options,
                 std::vector<Target>& targets) {
  const Row* const many = find_row(rows, system, largest(options).streams(), kReading);
  const Row* const usual = find_row(rows, system, kUsualStreams, kReading);
  const Row* const memory = find_row(rows, system, largest(options).streams(), kMemory);
  const Row* const idle = find_row(rows, system, largest(options).streams(), kIdle);
  if (many == nullptr || usual == nullptr) return;
  targets.push_back({.what = fmt::format("{}: GB/s of {} streams / of 16", system, many->streams),
                     .measured = ratio_of(many->gb_per_s.median, usual->gb_per_s.median),
                     .bound = kLeastOfSixteen});
  targets.push_back({.what = fmt::format("{}: {} streams, fairness (Jain)", system, many->streams),
                     .measured = figure_of(many, "jain"),
                     .bound = kLeastJain});
  targets.push_back({.what = system + ": the daemon's own memory, KiB per idle stream",
                     .measured = figure_of(memory, "idle_stream_kib"),
                     .at_least = false,
                     .bound = kMostKib});
  targets.push_back(
      {.what = fmt::format("{}: {} idle clients, switches/s beyond those without", system,
                           options.client_processes),
       .measured = figure_of(idle, "switches_per_s") - figure_of(idle, "switches_per_s_without_clients"),
       .at_least = false,
       .bound = kMostSwitches});
}

// A daemon of each engine that works here.
Result<std::vector<Daemon>> start_daemons(const HotFiles& recordings, const BenchOptions& options) {
  std::vector<Daemon> daemons;
  for (const std::string engine : {"mmap", "io_uring"}) {
    auto process = start_nvr_daemon(setup_of(recordings, options, largest(options).streams_each), engine);
    if (process)
      daemons.push_back({.engine = engine, .process = std::move(*process)});
    else if (engine == "mmap")
      return tl::unexpected(process.error());
    else
      fmt::print("nvr_io_uring is left out: {}\n", process.error().message);
  }
  return daemons;
}

Result<std::vector<Row>> measure_all(const HotFiles& recordings, const BenchOptions& options) {
  const auto daemons = start_daemons(recordings, options);
  if (!daemons) return tl::unexpected(daemons.error());
  std::vector<Row> rows;
  const auto append = [&](Result<std::vector<Row>> more) -> Result<void> {
    if (!more) return tl::unexpected(more.error());
    std::ranges::move(*more, std::back_inserter(rows));
    return {};
  };
  for (const Daemon& daemon : *daemons)
    if (auto done = append(look_at(daemon, recordings, options)); !done) return tl::unexpected(done.error());
  for (const Crowd crowd : crowds_of(options))
    if (auto done = append(run_crowd(*daemons, recordings, options, crowd)); !done)
      return tl::unexpected(done.error());
  return rows;
}

}  // namespace

Result<Findings> run_scale(const BenchOptions& options) {
  const auto recordings = HotFiles::create(options);
  if (!recordings) return tl::unexpected(recordings.error());
  fmt::print(
      "scale: recordings in the page cache, a thread for each stream, windows of {} chunks, {} rounds, {}\n"
      "       memory: the daemon's own (written, not shared); KiB of a stream include its connection's "
      "share\n\n",
      kSlots, options.rounds, describe_machine());
  std::fflush(stdout);
  const auto foreign = ForeignLoad::watch_children();
  auto rows = measure_all(*recordings, options);
  if (!rows) return tl::unexpected(rows.error());
  Findings findings = {.rows = std::move(*rows), .references = {}, .targets = {}};
  for (const char* const system : {"nvr_mmap", "nvr_io_uring"})
    add_targets(findings.rows, system, options, findings.targets);
  findings.foreign_cpus = foreign.cpus().value_or(0);
  return findings;
}

}  // namespace nvr::bench
