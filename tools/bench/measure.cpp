#include "tools/bench/measure.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "tools/bench/cpu_time.h"

namespace nvr::bench {
namespace {

// What a helper does after the last chunk (unmap, go to sleep) belongs to the work: give it time to be
// counted.
constexpr auto kSettle = std::chrono::milliseconds(5);

// One consumer: the streams that it takes from, and which file each is at.
class Consumer {
 public:
  Consumer(System& system, const FileSet& files) : system_(system), files_(files) {}

  void add_stream(std::size_t stream) {
    streams_.push_back({.stream = stream, .file = stream % files_.count()});
  }

  // Thread of its own, or the caller's.
  void run(BenchClock::time_point open_until) { outcome_ = read_all(open_until); }

  // Adds what it has taken and what it should have.
  [[nodiscard]] Result<void> add_to(Tally& taken, Tally& expected) const {
    taken.add(taken_);
    expected.add(expected_);
    return outcome_;
  }

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
    const FileRange range = files_.whole(reading.file);
    expected_.expect(files_, range);
    reading.open = true;
    ++open_;
    return system_.open(reading.stream, range);
  }

  // One chunk, if the stream is open; at its end it goes on with another file if `go_on`.
  [[nodiscard]] Result<void> take(Reading& reading, bool go_on) {
    if (!reading.open) return {};
    const auto more = system_.next(reading.stream, taken_);
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
  Tally taken_;
  Tally expected_;
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

}  // namespace

Flow to_flow(double bytes, double chunks, double seconds, double cpu_ns) {
  return {.gb_per_s = bytes / 1e9 / seconds,
          .cpu_s_per_gb = bytes > 0 ? cpu_ns / bytes : 0,
          .chunks_per_s = chunks / seconds};
}

Result<Meter> Meter::start(const System& system) {
  Meter meter(system);
  const auto before = meter.cpu_ns();
  if (!before) return tl::unexpected(before.error());
  meter.cpu_before_ns_ = *before;
  meter.started_ = BenchClock::now();
  return meter;
}

Result<Flow> Meter::stop(std::uint64_t bytes, std::uint64_t chunks) const {
  const std::chrono::duration<double> took = BenchClock::now() - started_;
  const auto after = cpu_ns();
  if (!after) return tl::unexpected(after.error());
  return to_flow(static_cast<double>(bytes), static_cast<double>(chunks), took.count(),
                 static_cast<double>(*after - cpu_before_ns_));
}

Result<std::uint64_t> Meter::cpu_ns() const {
  std::this_thread::sleep_for(kSettle);
  auto other = system_.other_cpu_ns();
  if (!other) return other;
  return own_cpu_ns() + *other;
}

Result<Flow> measure_flow(System& system, const FileSet& files, const Load& load) {
  std::vector<Consumer> consumers(std::min(load.consumers, load.streams), Consumer(system, files));
  for (std::size_t stream = 0; stream < load.streams; ++stream)
    consumers[stream % consumers.size()].add_stream(stream);

  const auto meter = Meter::start(system);
  if (!meter) return tl::unexpected(meter.error());
  run_consumers(consumers, BenchClock::now() + load.at_least);
  Tally taken;
  Tally expected;
  for (const Consumer& consumer : consumers)
    if (auto added = consumer.add_to(taken, expected); !added) return tl::unexpected(added.error());
  if (auto right = system.check(taken, expected); !right) return tl::unexpected(right.error());
  return meter->stop(expected.bytes, expected.bytes / kChunkBytes);
}

Result<void> measure_opens(System& system, const FileSet& files, const Opens& opens, Histogram& ns) {
  for (std::size_t i = 0; i < opens.count; ++i) {
    const FileRange range = files.chunk_at(i % files.count(), i * 37);  // 37: no place is near the one before
    Tally expected;
    expected.expect(files, range);
    if (opens.pause.count() > 0) std::this_thread::sleep_for(opens.pause);
    Tally taken;
    Arrival arrival(taken);
    const auto started = BenchClock::now();
    if (auto opened = system.open(0, range); !opened) return opened;
    const auto first = system.next(0, arrival);
    const auto read_at = BenchClock::now();
    if (!first) return tl::unexpected(first.error());
    system.close(0);
    if (auto right = system.check(taken, expected); !right) return right;
    ns.add(ns_between(started, opens.until_read ? read_at : arrival.at()));
  }
  return {};
}

Result<void> check_begin_of(System& system, const FileSet& files, FileRange range, const Tally& taken) {
  range.end = range.begin + taken.bytes;
  Tally expected;
  expected.expect(files, range);
  return system.check(taken, expected);
}

std::uint64_t ns_between(BenchClock::time_point begin, BenchClock::time_point end) {
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(end - begin).count());
}

}  // namespace nvr::bench
