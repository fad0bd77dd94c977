// Scenario "small": random small ranges of many recordings in the page cache, as thumbnails, indices and
// seeks ask for them. Each is opened, read and closed; 1 or 64 of them are outstanding at a time, all asked
// for by one thread, as an event loop does. What counts is opens per second.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "tools/bench/scenario.h"

namespace nvr::bench {
namespace {

constexpr std::array kSystems = {make_pread_system, make_thread_pool_system, make_seed_system,
                                 make_nvr_mmap_system, make_nvr_io_uring_system};
constexpr std::size_t kRecordings = 256;
constexpr std::size_t kMostOutstanding = 64;
constexpr std::array<std::size_t, 2> kOutstanding = {1, kMostOutstanding};
constexpr std::array<std::uint64_t, 2> kSizes = {kPageBytes, kChunkBytes};

std::string part_of(std::uint64_t bytes) {
  return fmt::format("{} KiB, outstanding:", bytes >> 10);
}

// Asks for ranges and takes them, the oldest first.
class Asker {
 public:
  Asker(System& system, const FileSet& files, std::uint64_t bytes)
      : system_(system), files_(files), bytes_(bytes) {}

  [[nodiscard]] Result<Flow> ask(std::size_t outstanding, std::chrono::nanoseconds at_least) {
    const auto meter = Meter::start(system_);
    if (!meter) return tl::unexpected(meter.error());
    auto done = ask_until(BenchClock::now() + at_least, outstanding);
    if (done) done = system_.check(taken_, expected_);
    if (!done) return tl::unexpected(done.error());
    return meter->stop(taken_.bytes, taken_.chunks);
  }

 private:
  [[nodiscard]] Result<void> ask_until(BenchClock::time_point end, std::size_t outstanding) {
    for (std::size_t stream = 0; stream < outstanding; ++stream)
      if (auto opened = open(stream); !opened) return opened;
    for (bool go_on = true; go_on;) {
      go_on = BenchClock::now() < end;
      for (std::size_t stream = 0; stream < outstanding; ++stream) {
        if (auto taken = take(stream); !taken) return taken;
        system_.close(stream);
        if (!go_on) continue;
        if (auto opened = open(stream); !opened) return opened;
      }
    }
    return {};
  }

  // To the end of its range.
  [[nodiscard]] Result<void> take(std::size_t stream) {
    for (;;) {
      const auto more = system_.next(stream, taken_);
      if (!more) return tl::unexpected(more.error());
      if (!*more) return {};
    }
  }

  [[nodiscard]] Result<void> open(std::size_t stream) {
    const std::size_t file = random_() % files_.count();
    const std::uint64_t begin = random_() % (files_.file_bytes() / bytes_) * bytes_;
    const FileRange range = {.file = file, .begin = begin, .end = begin + bytes_};
    expected_.expect(files_, range);
    return system_.open(stream, range);
  }

  System& system_;
  const FileSet& files_;
  std::uint64_t bytes_;
  std::mt19937_64 random_{1};  // every system is asked for the same
  Tally taken_;
  Tally expected_;
};

Result<std::vector<Turn>> turns_of(SystemSetup setup, const BenchOptions& options) {
  const FileSet& files = setup.files;
  setup.streams = kMostOutstanding;
  const auto systems = make_systems(kSystems, setup);
  if (!systems) return tl::unexpected(systems.error());
  std::vector<Turn> turns;
  for (const std::uint64_t bytes : kSizes)
    for (const std::size_t outstanding : kOutstanding)
      add_turns(turns, *systems, part_of(bytes), outstanding,
                [&, bytes, outstanding](System& system, Samples& samples) -> Result<void> {
                  const auto flow = Asker(system, files, bytes).ask(outstanding, options.run_time);
                  if (!flow) return tl::unexpected(flow.error());
                  samples.add(*flow);
                  return {};
                });
  return turns;
}

void require(Referee& referee) {
  for (const std::uint64_t bytes : kSizes)
    for (const auto& [other, bound] : {std::pair{"seed", 4.0}, std::pair{"thread_pool", 1.5}}) {
      const std::string part = part_of(bytes);
      referee.at_least(bound, fmt::format("{} {}, opens/s / {}", part, kMostOutstanding, other),
                       referee.ours(kMostOutstanding, "ops_per_s", part) /
                           referee.value(other, kMostOutstanding, "ops_per_s", part));
    }
}

}  // namespace

Plan plan_small(const BenchOptions& options) {
  const FileShape many = {
      .count = kRecordings,
      .bytes = std::max<std::uint64_t>(options.files.bytes * options.files.count / kRecordings, 1U << 20),
      .owner = options.files.owner};
  return {.heading = fmt::format("small: random ranges of {} in the page cache, {}\n"
                                 "       one thread opens, reads and closes; an op is one such range",
                                 describe(many), describe_run(options)),
          .files = many,
          .blocks = {{.warm_up_rounds = 1,
                      .rounds = options.rounds,
                      .round_s = 5,
                      .set_up = [&](const SystemSetup& setup) { return turns_of(setup, options); }}},
          .require = require};
}

}  // namespace nvr::bench
