// Scenario "latency": how long a consumer waits for a chunk of a recording in the page cache. One stream. An
// idle consumer sleeps for a millisecond before each question, so that everybody is asleep when it asks; a
// busy one asks again as soon as it has read what it got. Beside the systems: what one wake of another
// process costs and what one pread costs, in the same rounds.
#include <errno.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "tools/bench/ping_pong.h"
#include "tools/bench/scenario.h"

namespace nvr::bench {
namespace {

constexpr std::array kSystems = {make_pread_system,       make_thread_pool_system, make_seed_system,
                                 make_unix_socket_system, make_nvr_mmap_system,    make_nvr_io_uring_system};

// A consumer: how it asks, and how often in a round.
struct Manner {
  const char* name;
  std::chrono::nanoseconds pause;
  std::size_t asks;  // over all rounds
  std::size_t next_chunks_per_ask;
};
constexpr std::array kManners = {Manner{"idle", std::chrono::milliseconds(1), 1000, 1},
                                 Manner{"busy", std::chrono::nanoseconds(0), 6000, 10}};

// Fewer where measurements are to be shorter than they usually are.
std::size_t asks_in_a_round(const Manner& manner, const BenchOptions& options) {
  constexpr std::int64_t kUsualMs = 200;
  const auto ms = static_cast<std::size_t>(std::clamp<std::int64_t>(options.run_time.count(), 1, kUsualMs));
  return std::max<std::size_t>(1, manner.asks * ms / kUsualMs / options.rounds);
}

void sleep_for(std::chrono::nanoseconds pause) {
  if (pause.count() > 0) std::this_thread::sleep_for(pause);
}

Result<void> ask_next(System& system, const FileSet& files, std::size_t count, std::chrono::nanoseconds pause,
                      Histogram& ns) {
  for (std::size_t asked = 0, file = 0; asked < count; ++file) {
    const FileRange whole = files.whole(file);
    if (auto opened = system.open(0, whole); !opened) return opened;
    Tally tally;
    // To the end, since not every system can stop before.
    for (bool more = true; more;) {
      const bool is_first = tally.chunks == 0;  // of a stream: that is another question
      if (asked < count) sleep_for(pause);
      Arrival arrival(tally);
      const auto started = BenchClock::now();
      const auto taken = system.next(0, arrival);
      if (!taken) return tl::unexpected(taken.error());
      more = *taken;
      if (!more || is_first || asked == count) continue;
      ns.add(ns_between(started, arrival.at()));
      ++asked;
    }
    system.close(0);
    if (auto right = check_begin_of(system, files, whole, tally); !right) return right;
  }
  return {};
}

// pread alone, of a file that is open: as much of an answer as cannot be left out.
Result<void> ask_pread(const FileSet& files, std::size_t count, std::chrono::nanoseconds pause,
                       Histogram& ns) {
  const auto fd = files.open(0);
  if (!fd) return tl::unexpected(fd.error());
  std::vector<std::byte> buffer(kChunkBytes);
  for (std::size_t i = 0; i < count; ++i) {
    const auto at = static_cast<off_t>(files.chunk_at(0, i * 37).begin);
    sleep_for(pause);
    const auto started = BenchClock::now();
    const ssize_t got = pread(fd->get(), buffer.data(), buffer.size(), at);
    ns.add(ns_between(started, BenchClock::now()));
    if (got != static_cast<ssize_t>(buffer.size())) return fail_errno(errno, "cannot read " + files.path(0));
  }
  return {};
}

// What an answer is made of, and then the questions to the systems.
void add_turns_of(const Manner& manner, const FileSet& files, const Systems& systems,
                  const BenchOptions& options, std::vector<Turn>& turns) {
  const std::size_t asks = asks_in_a_round(manner, options);
  const std::string name = manner.name;
  for (const Wake wake : {Wake::kFutex, Wake::kEventfd})
    turns.push_back({.part = "one wake, " + name,
                     .system = wake == Wake::kFutex ? "futex" : "eventfd",
                     .measure = [=](Samples& samples) -> Result<void> {
                       const auto wakes = measure_wakes(wake, asks, manner.pause);
                       if (!wakes) return tl::unexpected(wakes.error());
                       samples.ns.add_all(*wakes);
                       return {};
                     }});
  turns.push_back({.part = "64 KiB of an open file, " + name,
                   .system = "pread",
                   .measure = [=, &files](Samples& samples) {
                     return ask_pread(files, asks, manner.pause, samples.ns);
                   }});
  add_turns(turns, systems, "open to first chunk, " + name, 1, [=, &files](System& system, Samples& samples) {
    return measure_opens(system, files, {.count = asks, .pause = manner.pause}, samples.ns);
  });
  add_turns(turns, systems, "next chunk, " + name, 1, [=, &files](System& system, Samples& samples) {
    return ask_next(system, files, asks * manner.next_chunks_per_ask, manner.pause, samples.ns);
  });
}

void require(Referee& referee) {
  const auto p50 = [&](std::string_view system, std::string_view part) {
    return referee.value(system, 1, "p50_us", part);
  };
  const double least = p50("eventfd", "one wake, idle") + p50("futex", "one wake, idle") +
                       p50("pread", "64 KiB of an open file, idle");
  referee.at_most(1.3, "open to first chunk, idle, p50 / (eventfd + futex + pread)",
                  referee.ours(1, "p50_us", "open to first chunk, idle") / least);
  referee.below(3, "next chunk, busy, p50 us", referee.ours(1, "p50_us", "next chunk, busy"));
}

}  // namespace

Plan plan_latency(const BenchOptions& options) {
  return {.heading = fmt::format(
              "latency: recordings in the page cache, 1 stream, {}\n"
              "         until the consumer has the chunk; idle: it slept for 1 ms before it asked",
              describe_run(options)),
          .files = options.files,
          .blocks = {{.warm_up_rounds = 1,
                      .rounds = options.rounds,
                      .round_s = 60 / static_cast<double>(options.rounds),
                      .set_up = [&options](const SystemSetup& setup) -> Result<std::vector<Turn>> {
                        const auto systems = make_systems(kSystems, setup);
                        if (!systems) return tl::unexpected(systems.error());
                        std::vector<Turn> turns;
                        for (const Manner& manner : kManners)
                          add_turns_of(manner, setup.files, *systems, options, turns);
                        return turns;
                      }}},
          .require = require};
}

}  // namespace nvr::bench
