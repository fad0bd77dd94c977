// Scenario "hot": recordings that are in the page cache, so that what is measured is the way from there to
// the consumer.
#include <fmt/format.h>

#include <algorithm>

#include "tools/bench/client_crew.h"

namespace nvr::bench {
namespace {

constexpr std::array kSystems = {make_memcpy_system,      make_pread_system,       make_thread_pool_system,
                                 make_seed_system,        make_unix_socket_system, make_nvr_mmap_system,
                                 make_nvr_io_uring_system};
// A daemon's windows of 64 streams take no more memory than those of 16: what it gives a client as it stands.
struct Group {
  std::size_t streams;  // most of the connection
  std::uint32_t slots;
  std::vector<std::size_t> counts;
};
constexpr std::size_t kMostStreams = 64;
constexpr std::uint32_t kSlotsOfMost = kSlotsPerStream * kUsualStreams / kMostStreams;
constexpr Crowd kProcesses = {.processes = 16, .streams_each = 1};
constexpr std::size_t kLeastOpens = 420;  // of each system, over all rounds
constexpr auto kLeastWindow = std::chrono::nanoseconds(std::chrono::milliseconds(20));

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

Result<std::vector<Turn>> group_turns(const Group& group, SystemSetup setup, const BenchOptions& options) {
  const FileSet& files = setup.files;
  setup.streams = group.streams;
  setup.slots = group.slots;
  const auto systems = make_systems(kSystems, setup);
  if (!systems) return tl::unexpected(systems.error());
  std::vector<Turn> turns;
  for (const std::size_t streams : group.counts) {
    add_turns(turns, *systems, "", streams,
              [&, streams, group](System& system, Samples& samples) -> Result<void> {
                if (auto warm = warm_up(system, files, group.streams); !warm) return warm;
                const auto flow = measure_flow(system, files,
                                               {.streams = streams,
                                                .consumers = options.consumers(streams),
                                                .at_least = time_of(options, streams)});
                if (!flow) return tl::unexpected(flow.error());
                samples.add(*flow);
                return {};
              });
    if (streams > 1) continue;
    const Opens opens = {.count = (kLeastOpens + options.rounds - 1) / options.rounds,
                         .pause = std::chrono::milliseconds(1),
                         .until_read = true};
    add_turns(turns, *systems, "", streams, [&files, opens](System& system, Samples& samples) {
      return measure_opens(system, files, opens, samples.ns);
    });
  }
  return turns;
}

void require(Referee& referee) {
  constexpr const char* kSpeed = "gb_per_s";
  constexpr const char* kCpu = "cpu_s_per_gb";
  const auto ratio = [&](std::string_view other, std::size_t streams, std::string_view figure) {
    return referee.ours(streams, figure) / referee.value(other, streams, figure);
  };
  referee.at_least(1.2, "1 stream, GB/s / pread", ratio("pread", 1, kSpeed));
  referee.at_least(12, "1 stream, GB/s / seed", ratio("seed", 1, kSpeed));
  referee.at_least(4, "16 streams, GB/s / seed", ratio("seed", kUsualStreams, kSpeed));
  referee.at_least(0.9, "64 streams, GB/s / with 16 streams",
                   referee.ours(kMostStreams, kSpeed) / referee.ours(kUsualStreams, kSpeed));
  for (const std::size_t streams : {std::size_t{1}, std::size_t{4}, kUsualStreams, kMostStreams}) {
    const auto what = [&](const char* other) { return describe_streams(streams) + ", CPU s/GB / " + other; };
    referee.at_most(streams == kUsualStreams ? 1.35 : 1.6, what("pread"), ratio("pread", streams, kCpu));
    referee.below(1, what("seed"), ratio("seed", streams, kCpu));
  }
  referee.at_most(2, "1 stream, open to first chunk, p50 / seed", ratio("seed", 1, "p50_us"));
}

}  // namespace

Plan plan_hot(const BenchOptions& options) {
  Plan plan = {.heading = fmt::format(
                   "hot: {} in the page cache, {}\n"
                   "     {}, every cache line read; CPU is of all processes together;\n"
                   "     p50, p99: from open() to the bytes of the first chunk, everybody asleep before",
                   describe(options.files), describe_run(options),
                   options.one_consumer ? "one consumer thread, streams in turn"
                                        : "a consumer thread for each stream"),
               .files = options.files,
               .references = {"pread", "seed"},
               .require = require};
  const double all_bytes = static_cast<double>(options.files.count * options.files.bytes);
  const double warm_up_s = static_cast<double>(kWarmUpRounds) * all_bytes / 3e9;
  for (const Group& group : {Group{kUsualStreams, kSlotsPerStream, {1, 4, kUsualStreams}},
                             Group{kMostStreams, kSlotsOfMost, {kMostStreams}}})
    plan.blocks.push_back(
        {.rounds = options.rounds,
         .round_s = static_cast<double>(group.counts.size() * kSystems.size()) * (0.5 + warm_up_s),
         .set_up = [&options, group](const SystemSetup& setup) {
           return group_turns(group, setup, options);
         }});
  plan.blocks.push_back({.warm_up_rounds = kWarmUpRounds,
                         .rounds = options.rounds,
                         .round_s = 2,
                         .set_up = [&options](const SystemSetup& setup) {
                           return crew_turns(setup, "16 processes", kProcesses,
                                             std::max(time_of(options, kProcesses.processes), kLeastWindow));
                         }});
  return plan;
}

}  // namespace nvr::bench
