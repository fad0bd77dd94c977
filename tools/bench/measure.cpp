#include "tools/bench/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "tools/bench/cpu_time.h"

namespace nvr::bench {
namespace {

using BenchClock = std::chrono::steady_clock;

// What a helper does after the last chunk (unmap, go to sleep) belongs to the work: give it time to be
// counted.
constexpr auto kSettle = std::chrono::milliseconds(5);

Result<void> check_sum(const System& system, std::uint64_t sum, std::uint64_t expected) {
  if (sum == expected) return {};
  return fail(Code::kDataLoss, fmt::format("{} delivered wrong bytes", system.name()));
}

// One consumer: the streams that it takes from, which file each is at, and what their bytes must add up to.
class Consumer {
 public:
  Consumer(System& system, const FileSet& files) : system_(system), files_(files) {}

  void add_stream(std::size_t stream) {
    streams_.push_back({.stream = stream, .file = stream % files_.count()});
  }

  // Thread of its own, or the caller's.
  void run(BenchClock::time_point open_until) { outcome_ = read_all(open_until); }

  [[nodiscard]] const Result<void>& outcome() const { return outcome_; }
  [[nodiscard]] const Tally& tally() const { return tally_; }
  [[nodiscard]] std::uint64_t expected_sum() const { return expected_sum_; }

 private:
  struct Reading {
    std::size_t stream = 0;
    std::size_t file = 0;
    bool open = false;
  };

  [[nodiscard]] Result<void> read_all(BenchClock::time_point open_until) {
    for (Reading& reading : streams_)
      if (auto opened = open(reading); !opened) return opened;
    while (open_ > 0) {
      const bool go_on = BenchClock::now() < open_until;
      for (Reading& reading : streams_)
        if (auto taken = take(reading, go_on); !taken) return taken;
    }
    return {};
  }

  [[nodiscard]] Result<void> open(Reading& reading) {
    const FileRange range = {.file = reading.file, .begin = 0, .end = files_.file_bytes()};
    expected_sum_ += files_.expected_sum(range.file, range.begin, range.end);
    reading.open = true;
    ++open_;
    return system_.open(reading.stream, range);
  }

  // One chunk, if the stream is open; at its end it goes on with another file if `go_on`.
  [[nodiscard]] Result<void> take(Reading& reading, bool go_on) {
    if (!reading.open) return {};
    const auto more = system_.next(reading.stream, tally_);
    if (!more) return tl::unexpected(more.error());
    if (*more) return {};
    system_.close(reading.stream);
    reading.open = false;
    --open_;
    reading.file = (reading.file + 1) % files_.count();
    return go_on ? open(reading) : Result<void>();
  }

  System& system_;
  const FileSet& files_;
  std::vector<Reading> streams_;
  std::size_t open_ = 0;
  Tally tally_;
  std::uint64_t expected_sum_ = 0;
  Result<void> outcome_;
};

// Runs all consumers until they are done: one of them on this thread.
void run_consumers(std::vector<Consumer>& consumers, BenchClock::time_point open_until) {
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < consumers.size(); ++i)
    threads.emplace_back(&Consumer::run, &consumers[i], open_until);
  consumers.front().run(open_until);
  for (std::thread& thread : threads) thread.join();
}

// What all consumers have taken together, if it is right.
Result<Tally> total_of(const System& system, const std::vector<Consumer>& consumers) {
  Tally total;
  std::uint64_t expected_sum = 0;
  for (const Consumer& consumer : consumers) {
    if (!consumer.outcome()) return tl::unexpected(consumer.outcome().error());
    total.chunks += consumer.tally().chunks;
    total.bytes += consumer.tally().bytes;
    total.sum += consumer.tally().sum;
    expected_sum += consumer.expected_sum();
  }
  if (auto right = check_sum(system, total.sum, expected_sum); !right) return tl::unexpected(right.error());
  return total;
}

}  // namespace

Result<std::uint64_t> cpu_ns_with(const System& system) {
  std::this_thread::sleep_for(kSettle);
  auto other = system.other_cpu_ns();
  if (!other) return other;
  return own_cpu_ns() + *other;
}

Result<Flow> measure_flow(System& system, const FileSet& files, const Load& load) {
  std::vector<Consumer> consumers(std::min(load.consumers, load.streams), Consumer(system, files));
  for (std::size_t stream = 0; stream < load.streams; ++stream)
    consumers[stream % consumers.size()].add_stream(stream);

  const auto cpu_before = cpu_ns_with(system);
  if (!cpu_before) return tl::unexpected(cpu_before.error());
  const auto started = BenchClock::now();
  run_consumers(consumers, started + load.at_least);
  const std::chrono::duration<double> took = BenchClock::now() - started;
  const auto cpu_after = cpu_ns_with(system);
  if (!cpu_after) return tl::unexpected(cpu_after.error());

  const auto total = total_of(system, consumers);
  if (!total) return tl::unexpected(total.error());
  const double gigabytes = static_cast<double>(total->bytes) / 1e9;
  return Flow{.gb_per_s = gigabytes / took.count(),
              .cpu_s_per_gb = static_cast<double>(*cpu_after - *cpu_before) / 1e9 / gigabytes,
              .chunks_per_s = static_cast<double>(total->chunks) / took.count()};
}

Result<ForeignLoad> ForeignLoad::watch(const std::vector<std::unique_ptr<System>>& systems) {
  const auto start = sample(systems);
  if (!start) return tl::unexpected(start.error());
  return ForeignLoad(systems, *start);
}

ForeignLoad ForeignLoad::watch_children() {
  static const std::vector<std::unique_ptr<System>> none;
  return ForeignLoad(none, *sample(none));
}

Result<double> ForeignLoad::cpus() const {
  const auto now = sample(systems_);
  if (!now) return tl::unexpected(now.error());
  const std::chrono::duration<double> passed = now->at - start_.at;
  return std::max(0.0, (now->foreign_cpu_s - start_.foreign_cpu_s) / passed.count());
}

Result<ForeignLoad::Sample> ForeignLoad::sample(const std::vector<std::unique_ptr<System>>& systems) {
  double foreign_s = (static_cast<double>(machine_cpu_ns()) - static_cast<double>(own_cpu_ns()) -
                      static_cast<double>(ended_children_cpu_ns())) /
                     1e9;
  for (const auto& system : systems) {
    const auto helpers = system->other_cpu_ns();
    if (!helpers) return tl::unexpected(helpers.error());
    foreign_s -= static_cast<double>(*helpers) / 1e9;
  }
  return Sample{.at = BenchClock::now(), .foreign_cpu_s = foreign_s};
}

Result<std::vector<double>> measure_opens(System& system, const FileSet& files, std::size_t count,
                                          std::chrono::nanoseconds pause) {
  std::vector<double> us;
  us.reserve(count);
  const std::uint64_t chunks = files.file_bytes() / kChunkBytes;
  for (std::size_t i = 0; i < count; ++i) {
    std::this_thread::sleep_for(pause);
    const std::uint64_t begin = (i * 37) % chunks * kChunkBytes;  // 37: no place is near the one before
    const FileRange range = {.file = i % files.count(), .begin = begin, .end = begin + kChunkBytes};
    Tally tally;
    const auto started = BenchClock::now();
    if (auto opened = system.open(0, range); !opened) return tl::unexpected(opened.error());
    const auto first = system.next(0, tally);
    const std::chrono::duration<double, std::micro> took = BenchClock::now() - started;
    if (!first) return tl::unexpected(first.error());
    system.close(0);
    if (auto right = check_sum(system, tally.sum, files.expected_sum(range.file, range.begin, range.end));
        !right)
      return tl::unexpected(right.error());
    us.push_back(took.count());
  }
  return us;
}

}  // namespace nvr::bench
