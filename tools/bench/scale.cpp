// Scenario "scale": one daemon, and up to a thousand streams of two hundred client processes. All of them
// read as fast as they get recordings from the page cache: throughput and fairness. Before that the daemon's
// own memory, and what it does while nobody asks for anything.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <thread>

#include "tools/bench/client_crew.h"
#include "tools/bench/cpu_time.h"
#include "tools/bench/nvr_system.h"
#include "tools/bench/process_facts.h"

namespace nvr::bench {
namespace {

constexpr std::array kSmallerCrowds = {Crowd{1, 1}, Crowd{4, 4}, Crowd{40, 5}};
constexpr std::size_t kStreamsEach = 5;
constexpr std::uint32_t kSlots = 8;  // of each stream: half a gigabyte of windows in all
constexpr auto kIdleTime = std::chrono::seconds(4);

constexpr const char* kReading = "all read";
constexpr const char* kMemory = "memory";
constexpr const char* kIdle = "nobody reads";

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

// The more streams, the longer the time, so that each has its turn many times.
std::chrono::nanoseconds window_of(const BenchOptions& options, Crowd crowd) {
  constexpr std::size_t kStreamsOfOneTime = 75;
  const auto least = std::max<std::chrono::nanoseconds>(options.run_time, std::chrono::milliseconds(200));
  return least * static_cast<std::int64_t>(1 + crowd.streams() / kStreamsOfOneTime);
}

// A new daemon, to look at what it has and does.
class Watched {
 public:
  [[nodiscard]] static Result<Watched> start(SystemSetup setup, const std::string& engine, Crowd crowd) {
    setup.streams = crowd.streams_each;
    setup.slots = kSlots;
    auto daemon = start_nvr_daemon(setup, engine);
    if (!daemon) return tl::unexpected(daemon.error());
    return Watched(setup, engine, crowd, std::move(*daemon));
  }

  // With clients, without, with streams that nobody reads, and with streams that all read.
  [[nodiscard]] Result<void> measure_memory(Samples& samples) const {
    const auto empty = memory();
    auto crew = start_crew();
    if (!crew) return tl::unexpected(crew.error());
    std::this_thread::sleep_for(std::chrono::seconds(1));  // it fills windows when it has nothing else to do
    const auto connected = memory();
    if (auto opened = crew->open_streams(); !opened) return opened;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const auto open = memory();
    if (auto closed = crew->close_streams(); !closed) return closed;
    Result<MemoryUse> reading;
    const auto flow = crew->measure(std::chrono::milliseconds(500), [&] { reading = memory(); });
    if (!flow) return tl::unexpected(flow.error());
    for (const auto* const use : {&empty, &connected, &open, &std::as_const(reading)})
      if (!*use) return tl::unexpected(use->error());
    const auto more = [&](const Result<MemoryUse>& use, double MemoryUse::*kind, std::size_t count) {
      return (*use.*kind - *empty.*kind) / static_cast<double>(count);
    };
    samples.add("empty_daemon_kib", empty->own_kib);
    samples.add("idle_connection_kib", more(connected, &MemoryUse::own_kib, crowd_.processes));
    samples.add("idle_stream_kib", more(open, &MemoryUse::own_kib, crowd_.streams()));
    samples.add("active_stream_kib", more(reading, &MemoryUse::own_kib, crowd_.streams()));
    samples.add("window_kib_per_stream", more(reading, &MemoryUse::window_kib, crowd_.streams()));
    samples.add("page_table_kib_per_stream", more(reading, &MemoryUse::table_kib, crowd_.streams()));
    return {};
  }

  // Without clients, and with clients that ask for nothing.
  [[nodiscard]] Result<void> measure_idleness(Samples& samples) const {
    if (auto alone = watch("_without_clients", samples); !alone) return alone;
    const auto crew = start_crew();
    if (!crew) return tl::unexpected(crew.error());
    std::this_thread::sleep_for(std::chrono::seconds(1));
    return watch("", samples);
  }

 private:
  Watched(SystemSetup setup, std::string engine, Crowd crowd, DaemonProcess daemon)
      : setup_(std::move(setup)), engine_(std::move(engine)), crowd_(crowd), daemon_(std::move(daemon)) {}

  [[nodiscard]] Result<MemoryUse> memory() const { return memory_of(daemon_.pid()); }
  [[nodiscard]] Result<ClientCrew> start_crew() const {
    return ClientCrew::start(setup_.files, crowd_, [this] { return NvrSystem::connect(setup_, engine_); },
                             {daemon_.pid()});
  }
  [[nodiscard]] Result<void> watch(const std::string& when, Samples& samples) const {
    const auto switches_before = switches_of(daemon_.pid());
    const auto cpu_before = cpu_ns_of(daemon_.pid());
    std::this_thread::sleep_for(kIdleTime);
    const auto switches = switches_of(daemon_.pid());
    const auto cpu = cpu_ns_of(daemon_.pid());
    if (!switches_before || !cpu_before || !switches || !cpu)
      return fail(Code::kUnavailable, "nvr-readerd has ended");
    const double seconds = std::chrono::duration<double>(kIdleTime).count();
    samples.add("switches_per_s" + when, static_cast<double>(*switches - *switches_before) / seconds);
    samples.add("cpu_ms_per_s" + when, static_cast<double>(*cpu - *cpu_before) / 1e6 / seconds);
    return {};
  }

  SystemSetup setup_;
  std::string engine_;
  Crowd crowd_;
  DaemonProcess daemon_;
};

// One turn for each engine, with a daemon of its own.
std::vector<Turn> watch_turns(const SystemSetup& setup, const char* part, Crowd crowd,
                              Result<void> (Watched::*measure)(Samples&) const) {
  std::vector<Turn> turns;
  for (const std::string engine : {"mmap", "io_uring"})
    turns.push_back({.part = part,
                     .system = "nvr_" + engine,
                     .streams = crowd.streams(),
                     .measure = [=](Samples& samples) -> Result<void> {
                       const auto watched = Watched::start(setup, engine, crowd);
                       if (watched) return ((*watched).*measure)(samples);
                       const Result<void> failed = tl::unexpected(watched.error());
                       return engine == "io_uring" ? unless_refused(failed) : failed;
                     }});
  return turns;
}

void require(Referee& referee, Crowd crowd) {
  const std::size_t streams = crowd.streams();
  referee.at_least(
      0.8, fmt::format("GB/s of {} streams / of 16", streams),
      referee.ours(streams, "gb_per_s", kReading) / referee.ours(kUsualStreams, "gb_per_s", kReading));
  referee.at_least(0.95, fmt::format("{} streams, fairness (Jain)", streams),
                   referee.ours(streams, "jain", kReading));
  referee.at_most(16, "the daemon's own memory, KiB per idle stream",
                  referee.ours(streams, "idle_stream_kib", kMemory));
  // None, but for one that happened to be there.
  referee.at_most(0.5, fmt::format("{} idle clients, switches/s beyond those without", crowd.processes),
                  referee.ours(streams, "switches_per_s", kIdle) -
                      referee.ours(streams, "switches_per_s_without_clients", kIdle));
}

}  // namespace

Plan plan_scale(const BenchOptions& options) {
  const Crowd most = largest(options);
  Plan plan = {.heading = fmt::format(
                   "scale: recordings in the page cache, a thread for each stream, windows of {} chunks, {}\n"
                   "       memory: the daemon's own (written, not shared); KiB of a stream include its "
                   "connection's share",
                   kSlots, describe_run(options)),
               .files = options.files,
               .require = [most](Referee& referee) { require(referee, most); }};
  plan.blocks.push_back(
      {.round_s = 40, .set_up = [most](const SystemSetup& setup) -> Result<std::vector<Turn>> {
         std::vector<Turn> turns = watch_turns(setup, kMemory, most, &Watched::measure_memory);
         std::ranges::move(watch_turns(setup, kIdle, most, &Watched::measure_idleness),
                           std::back_inserter(turns));
         return turns;
       }});
  for (const Crowd crowd : crowds_of(options)) {
    const auto window = window_of(options, crowd);
    plan.blocks.push_back({// A crowd reads every recording many times in a round.
                           .warm_up_rounds = crowd.streams() <= kUsualStreams ? kWarmUpRounds : 1,
                           .rounds = options.rounds,
                           .round_s = 3 * 1.6 * std::chrono::duration<double>(window).count(),
                           .set_up = [crowd, window](SystemSetup setup) {
                             setup.slots = kSlots;
                             return crew_turns(setup, kReading, crowd, window);
                           }});
  }
  return plan;
}

}  // namespace nvr::bench
