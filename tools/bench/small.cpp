// Scenario "small": random small ranges of many recordings in the page cache, as thumbnails, indices and
// seeks ask for them. Each is opened, read and closed; 1 or 64 of them are outstanding at a time, all asked
// for by one thread, as an event loop does. What counts is opens per second.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <random>

#include "tools/bench/compare.h"
#include "tools/bench/hot_files.h"

namespace nvr::bench {
namespace {

using BenchClock = std::chrono::steady_clock;

constexpr std::array kSystems = {make_pread_system, make_thread_pool_system, make_seed_system,
                                 make_nvr_mmap_system, make_nvr_io_uring_system};
constexpr std::size_t kRecordings = 256;
constexpr std::size_t kMostOutstanding = 64;
constexpr std::array<std::size_t, 2> kOutstanding = {1, kMostOutstanding};
constexpr std::array<std::uint64_t, 2> kSizes = {kPageBytes, kChunkBytes};
constexpr double kTimesSeed = 4;
constexpr double kTimesPool = 1.5;

std::string part_of(std::uint64_t bytes) {
  return fmt::format("{} KiB, outstanding:", bytes >> 10);
}

// Asks for ranges and takes them, the oldest first.
class Asker {
 public:
  Asker(System& system, const FileSet& files, std::uint64_t bytes)
      : system_(system), files_(files), bytes_(bytes) {}

  // Opens per second, and what they cost.
  [[nodiscard]] Result<Flow> ask(std::size_t outstanding, std::chrono::nanoseconds at_least) {
    const auto cpu_before = cpu_ns_with(system_);
    if (!cpu_before) return tl::unexpected(cpu_before.error());
    const auto started = BenchClock::now();
    const auto done = ask_until(started + at_least, outstanding);
    if (!done) return tl::unexpected(done.error());
    const std::chrono::duration<double> took = BenchClock::now() - started;
    const auto cpu_after = cpu_ns_with(system_);
    if (!cpu_after) return tl::unexpected(cpu_after.error());
    if (tally_.sum != expected_sum_)
      return fail(Code::kDataLoss, fmt::format("{} delivered wrong bytes", system_.name()));
    const auto bytes = static_cast<double>(tally_.bytes);
    return Flow{.gb_per_s = bytes / 1e9 / took.count(),
                .cpu_s_per_gb = static_cast<double>(*cpu_after - *cpu_before) / bytes,
                .chunks_per_s = static_cast<double>(tally_.chunks) / took.count()};
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
      const auto more = system_.next(stream, tally_);
      if (!more) return tl::unexpected(more.error());
      if (!*more) return {};
    }
  }

  [[nodiscard]] Result<void> open(std::size_t stream) {
    const std::size_t file = random_() % files_.count();
    const std::uint64_t begin = random_() % (files_.file_bytes() / bytes_) * bytes_;
    expected_sum_ += files_.expected_sum(file, begin, begin + bytes_);
    return system_.open(stream, {.file = file, .begin = begin, .end = begin + bytes_});
  }

  System& system_;
  const FileSet& files_;
  std::uint64_t bytes_;
  std::mt19937_64 random_{1};  // every system is asked for the same
  Tally tally_;
  std::uint64_t expected_sum_ = 0;
};

Result<std::vector<Row>> run_load(const Systems& systems, const FileSet& files, const BenchOptions& options,
                                  std::uint64_t bytes, std::size_t outstanding) {
  std::vector<Samples> samples(systems.size());
  for (std::size_t round = 0; round <= options.rounds; ++round)  // the first one warms up
    for (std::size_t i = 0; i < systems.size(); ++i) {
      if (interrupted()) return fail(Code::kCancelled, "interrupted");
      const auto flow = Asker(*systems[i], files, bytes).ask(outstanding, options.run_time);
      if (!flow) return tl::unexpected(flow.error());
      if (round > 0) samples[i].add(*flow);
    }
  std::vector<Row> rows;
  for (std::size_t i = 0; i < systems.size(); ++i) {
    rows.push_back(to_row("small", systems[i]->name(), outstanding, samples[i]));
    rows.back().part = part_of(bytes);
  }
  return rows;
}

std::vector<Target> targets_of(const std::vector<Row>& rows) {
  std::vector<Target> targets;
  for (const Row& ours : rows) {
    if (ours.streams != kMostOutstanding || !ours.system.starts_with("nvr_")) continue;
    const auto compare = [&](const std::string& other, double bound) {
      const auto opens_of = [&](std::string_view system) {
        const Row* const row = find_row(rows, system, ours.streams, ours.part);
        return row == nullptr ? 0 : row->ops_per_s.median;
      };
      targets.push_back(
          {.what = fmt::format("{}: {} {}, opens/s / {}", ours.system, ours.part, ours.streams, other),
           .measured = ratio_of(ours.ops_per_s.median, opens_of(other)),
           .bound = bound});
    };
    compare("seed", kTimesSeed);
    compare("thread_pool", kTimesPool);
  }
  return targets;
}

}  // namespace

Result<Findings> run_small(const BenchOptions& options) {
  BenchOptions many = options;
  many.files.bytes =
      std::max<std::uint64_t>(options.files.bytes * options.files.count / kRecordings, 1U << 20);
  many.files.count = kRecordings;
  const auto recordings = HotFiles::create(many);
  if (!recordings) return tl::unexpected(recordings.error());
  fmt::print(
      "small: random ranges of {} recordings of {} MiB in the page cache, {} rounds, {}\n"
      "       one thread opens, reads and closes; an op is one such range\n\n",
      many.files.count, many.files.bytes >> 20, options.rounds, describe_machine());
  std::fflush(stdout);
  SystemSetup setup = recordings->setup(options);
  setup.streams = kMostOutstanding;
  const auto systems = make_systems(kSystems, setup);
  if (!systems) return tl::unexpected(systems.error());
  const auto foreign = ForeignLoad::watch(*systems);
  if (!foreign) return tl::unexpected(foreign.error());
  Findings findings;
  for (const std::uint64_t bytes : kSizes)
    for (const std::size_t outstanding : kOutstanding) {
      auto rows = run_load(*systems, recordings->files(), options, bytes, outstanding);
      if (!rows) return tl::unexpected(rows.error());
      std::ranges::move(*rows, std::back_inserter(findings.rows));
    }
  findings.targets = targets_of(findings.rows);
  const auto foreign_cpus = foreign->cpus();
  if (!foreign_cpus) return tl::unexpected(foreign_cpus.error());
  findings.foreign_cpus = *foreign_cpus;
  return findings;
}

}  // namespace nvr::bench
