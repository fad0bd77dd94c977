#include "tools/bench/disk_load.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>

#include "shm/unique_fd.h"
#include "tools/bench/scenario.h"

namespace nvr::bench {
namespace {

using BenchClock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// What a viewer has before it begins to show, and never has more of.
constexpr double kStartBufferS = 2;

BenchClock::duration to_duration(double seconds) {
  return std::chrono::duration_cast<BenchClock::duration>(Seconds(seconds));
}

struct Window {
  BenchClock::time_point begin;
  BenchClock::time_point counts_from;
  BenchClock::time_point end;
  std::atomic<BenchClock::rep> ended_early{BenchClock::time_point::max().time_since_epoch().count()};

  [[nodiscard]] bool is_over() const {
    return BenchClock::now() >= end || interrupted() ||
           ended_early.load() != BenchClock::time_point::max().time_since_epoch().count();
  }
  void end_now() {
    auto expected = BenchClock::time_point::max().time_since_epoch().count();
    ended_early.compare_exchange_strong(expected, BenchClock::now().time_since_epoch().count());
  }
  // Until the window is over, at most.
  void sleep_until(BenchClock::time_point when) const {
    constexpr auto kStep = std::chrono::milliseconds(50);
    for (auto now = BenchClock::now(); now < when && !is_over(); now = BenchClock::now())
      std::this_thread::sleep_until(std::min(when, now + kStep));
  }
};

// One stream and its thread.
class Runner {
 public:
  Runner(System& system, const FileSet& files, std::size_t stream, const DiskStream& what)
      : system_(system), files_(files), stream_(stream), what_(what), range_(what.range) {}

  void run(Window& window) {
    outcome_ = read(window);
    if (!outcome_) window.end_now();
  }
  [[nodiscard]] const Result<void>& outcome() const { return outcome_; }
  [[nodiscard]] const DiskStreamResult& result() const { return result_; }

 private:
  [[nodiscard]] Result<void> read(Window& window) {
    if (auto opened = system_.open(stream_, range_); !opened) return opened;
    while (!window.is_over()) {
      if (what_.bytes_per_s > 0) wait_for_room(window);
      const auto more = system_.next(stream_, tally_);
      if (!more) return tl::unexpected(more.error());
      if (!*more) {
        if (auto next = at_end(window); !next) return next;
        continue;
      }
      count(window);
      ++chunks_;
      if (what_.bytes_per_s > 0) show(std::min(BenchClock::now(), window.end));
    }
    if (what_.bytes_per_s > 0 && !showing_since_) {
      ++result_.underruns;
      result_.stalled_s += Seconds(window.end - window.begin).count();
    }
    system_.close(stream_);
    return check();
  }

  // A chunk has been taken. One that came after the window may have been missed, but came too late.
  void count(const Window& window) {
    const std::uint64_t all = before_ + tally_.bytes;
    if (BenchClock::now() < window.counts_from)
      before_window_ = all;
    else if (!window.is_over())
      result_.bytes = all - before_window_;
  }
  // A chunk's place is free when the one that lies a whole buffer before it begins to be shown.
  void wait_for_room(const Window& window) const {
    if (!showing_since_ || chunks_ < buffer_chunks()) return;
    window.sleep_until(*showing_since_ + chunk_time() * static_cast<int>(chunks_ - buffer_chunks()));
  }
  // A chunk has come: late if it should have been on the screen before.
  void show(BenchClock::time_point now) {
    if (!showing_since_) {
      if (chunks_ >= buffer_chunks()) showing_since_ = now;
      return;
    }
    const auto due = *showing_since_ + chunk_time() * static_cast<int>(chunks_ - 1);
    if (now <= due) return;
    ++result_.underruns;
    result_.stalled_s += Seconds(now - due).count();
    *showing_since_ += now - due;
  }
  [[nodiscard]] BenchClock::duration chunk_time() const {
    return to_duration(static_cast<double>(kChunkBytes) / what_.bytes_per_s);
  }
  [[nodiscard]] std::uint64_t buffer_chunks() const {
    return static_cast<std::uint64_t>(
        std::ceil(kStartBufferS * what_.bytes_per_s / static_cast<double>(kChunkBytes)));
  }

  [[nodiscard]] Result<void> at_end(Window& window) {
    if (!what_.circle) {
      window.end_now();
      return {};
    }
    system_.close(stream_);
    if (auto right = check(); !right) return right;
    if (!what_.circle->stays_cached) {
      const shm::UniqueFd fd(open(files_.path(range_.file).c_str(), O_RDONLY | O_CLOEXEC));
      if (fd) posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
    }
    before_ += tally_.bytes;
    tally_ = {};
    range_.file = range_.file == what_.circle->last ? what_.circle->first : range_.file + 1;
    return system_.open(stream_, range_);
  }
  [[nodiscard]] Result<void> check() const {
    if (tally_.sum == files_.expected_sum(range_.file, range_.begin, range_.begin + tally_.bytes)) return {};
    return fail(Code::kDataLoss, fmt::format("{} delivered wrong bytes", system_.name()));
  }

  System& system_;
  const FileSet& files_;
  std::size_t stream_;
  DiskStream what_;
  FileRange range_;                  // that is open
  Tally tally_;                      // of it
  std::uint64_t before_ = 0;         // bytes of the ranges before
  std::uint64_t before_window_ = 0;  // of all, in the run-up
  std::uint64_t chunks_ = 0;
  std::optional<BenchClock::time_point> showing_since_;  // moved on by the time that was stalled
  DiskStreamResult result_;
  Result<void> outcome_;
};

// Opens one range after another, and closes it after its first chunk.
Result<void> measure_openings(System& system, const FileSet& files, Opener& opener, const Window& window) {
  auto at = window.begin + std::chrono::seconds(1);
  for (const FileRange& range : opener.ranges) {
    window.sleep_until(at);
    if (window.is_over()) break;
    Tally tally;
    const auto started = BenchClock::now();
    if (auto opened = system.open(opener.stream, range); !opened) return opened;
    const auto first = system.next(opener.stream, tally);
    opener.ms.push_back(Seconds(BenchClock::now() - started).count() * 1e3);
    system.close(opener.stream);
    if (!first) return tl::unexpected(first.error());
    if (tally.sum != files.expected_sum(range.file, range.begin, range.begin + tally.bytes))
      return fail(Code::kDataLoss, fmt::format("{} delivered wrong bytes", system.name()));
    at = std::max(at + opener.pause, BenchClock::now());
  }
  return {};
}

}  // namespace

double DiskLoadResult::mb_per_s() const {
  double bytes = 0;
  for (const auto& stream : streams) bytes += static_cast<double>(stream.bytes);
  return bytes / 1e6 / seconds;
}

double DiskLoadResult::jain() const {
  double sum = 0;
  double squares = 0;
  for (const auto& stream : streams) {
    const auto bytes = static_cast<double>(stream.bytes);
    sum += bytes;
    squares += bytes * bytes;
  }
  return squares > 0 ? sum * sum / (static_cast<double>(streams.size()) * squares) : 0;
}

std::uint64_t DiskLoadResult::underruns() const {
  std::uint64_t sum = 0;
  for (const auto& stream : streams) sum += stream.underruns;
  return sum;
}

double DiskLoadResult::stalled_s() const {
  double sum = 0;
  for (const auto& stream : streams) sum += stream.stalled_s;
  return sum;
}

Result<DiskLoadResult> run_disk_load(System& system, const FileSet& files,
                                     const std::vector<DiskStream>& streams, double seconds, Opener* opener,
                                     double run_up_s) {
  std::vector<Runner> runners;
  for (std::size_t i = 0; i < streams.size(); ++i) runners.emplace_back(system, files, i, streams[i]);
  const auto begin = BenchClock::now();
  Window window = {
      .begin = begin, .counts_from = begin + to_duration(run_up_s), .end = begin + to_duration(seconds)};
  std::vector<std::thread> threads;
  for (Runner& runner : runners) threads.emplace_back(&Runner::run, &runner, std::ref(window));
  Result<void> opened;
  if (opener != nullptr) {
    opened = measure_openings(system, files, *opener, window);
    if (!opened) window.end_now();
  }
  for (std::thread& thread : threads) thread.join();
  if (!opened) return tl::unexpected(opened.error());
  if (interrupted()) return fail(Code::kCancelled, "interrupted");

  const BenchClock::time_point early{BenchClock::duration(window.ended_early.load())};
  const auto ended = std::max(std::min(window.end, early), window.counts_from);
  DiskLoadResult result = {.seconds = Seconds(ended - window.counts_from).count(), .streams = {}};
  for (const Runner& runner : runners) {
    if (!runner.outcome()) return tl::unexpected(runner.outcome().error());
    result.streams.push_back(runner.result());
  }
  return result;
}

}  // namespace nvr::bench
