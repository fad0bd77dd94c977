#include "tools/bench/window.h"

#include <fcntl.h>

#include <atomic>
#include <cmath>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "tools/bench/measure.h"
#include "tools/bench/scenario.h"

namespace nvr::bench {
namespace {

using Seconds = std::chrono::duration<double>;

// What a viewer has before it begins to show, and never has more of.
constexpr double kStartBufferS = 2;
constexpr auto kOpenPause = std::chrono::seconds(1);

BenchClock::duration to_duration(double seconds) {
  return std::chrono::duration_cast<BenchClock::duration>(Seconds(seconds));
}

struct Window {
  BenchClock::time_point begin;
  BenchClock::time_point counts_from;
  BenchClock::time_point end;
  std::atomic<bool> has_failed = false;

  [[nodiscard]] bool is_over() const { return BenchClock::now() >= end || interrupted() || has_failed; }
  // Until the window is over, at most.
  void sleep_until(BenchClock::time_point when) const {
    constexpr auto kStep = std::chrono::milliseconds(50);
    for (auto now = BenchClock::now(); now < when && !is_over(); now = BenchClock::now())
      std::this_thread::sleep_until(std::min(when, now + kStep));
  }
};

// What a viewer shows: it begins when it has a buffer full, and a chunk has its time on the screen.
class Screen {
 public:
  explicit Screen(double bytes_per_s)
      : chunk_time_(to_duration(static_cast<double>(kChunkBytes) / bytes_per_s)),
        buffer_(static_cast<std::uint64_t>(
            std::ceil(kStartBufferS * bytes_per_s / static_cast<double>(kChunkBytes)))) {}

  // A chunk's place is free when the one that lies a whole buffer before it begins to be shown.
  [[nodiscard]] BenchClock::time_point room_at() const {
    if (!showing_since_ || chunks_ < buffer_) return {};
    return *showing_since_ + chunk_time_ * static_cast<int>(chunks_ - buffer_);
  }
  // A chunk has come: late if it should have been on the screen before.
  void show(BenchClock::time_point now, WindowResult& result) {
    ++chunks_;
    if (!showing_since_) {
      if (chunks_ >= buffer_) showing_since_ = now;
      return;
    }
    const auto due = *showing_since_ + chunk_time_ * static_cast<int>(chunks_ - 1);
    if (now <= due) return;
    ++result.underruns;
    result.stalled_s += Seconds(now - due).count();
    *showing_since_ += now - due;
  }
  void end(const Window& window, WindowResult& result) const {
    if (showing_since_) return;
    ++result.underruns;
    result.stalled_s += Seconds(window.end - window.begin).count();
  }

 private:
  BenchClock::duration chunk_time_;
  std::uint64_t buffer_;  // chunks
  std::uint64_t chunks_ = 0;
  std::optional<BenchClock::time_point> showing_since_;  // moved on by the time that was stalled
};

// One stream and its thread.
class Runner {
 public:
  Runner(System& system, const FileSet& files, std::size_t stream, const WindowStream& what)
      : system_(system), files_(files), stream_(stream), what_(what), range_(what.range) {
    if (what.bytes_per_s > 0) screen_.emplace(what.bytes_per_s);
  }

  void run(Window& window) {
    outcome_ = read(window);
    if (!outcome_) window.has_failed = true;
  }
  [[nodiscard]] Result<void> add_to(WindowResult& result) const {
    result.stream_bytes.push_back(bytes_);
    result.underruns += shown_.underruns;
    result.stalled_s += shown_.stalled_s;
    return outcome_;
  }

 private:
  [[nodiscard]] Result<void> read(const Window& window) {
    if (auto opened = system_.open(stream_, range_); !opened) return opened;
    while (!window.is_over()) {
      if (screen_) window.sleep_until(screen_->room_at());
      const std::uint64_t before = tally_.bytes;
      const auto more = system_.next(stream_, tally_);
      if (!more) return tl::unexpected(more.error());
      if (!*more) {
        if (auto next = open_next(); !next) return next;
        continue;
      }
      // A chunk that came after the window may have been missed, but came too late.
      if (BenchClock::now() >= window.counts_from && !window.is_over())
        bytes_ += static_cast<double>(tally_.bytes - before);
      if (screen_) screen_->show(std::min(BenchClock::now(), window.end), shown_);
    }
    if (screen_) screen_->end(window, shown_);
    return close();
  }

  [[nodiscard]] Result<void> open_next() {
    if (auto closed = close(); !closed) return closed;
    if (!what_.stays_cached)
      if (const auto fd = files_.open(range_.file)) posix_fadvise(fd->get(), 0, 0, POSIX_FADV_DONTNEED);
    range_.file = range_.file == what_.last_file ? what_.first_file : range_.file + 1;
    return system_.open(stream_, range_);
  }
  [[nodiscard]] Result<void> close() {
    system_.close(stream_);
    return check_begin_of(system_, files_, range_, std::exchange(tally_, {}));
  }

  System& system_;
  const FileSet& files_;
  std::size_t stream_;
  WindowStream what_;
  FileRange range_;  // that is open
  Tally tally_;      // of it
  double bytes_ = 0;
  std::optional<Screen> screen_;  // of a viewer
  WindowResult shown_;
  Result<void> outcome_;
};

// Opens one range after another, and closes it after its first chunk.
Result<void> measure_openings(System& system, const FileSet& files, std::size_t stream, Opener& opener,
                              const Window& window) {
  auto at = window.begin + kOpenPause;
  for (const FileRange& range : opener.ranges) {
    window.sleep_until(at);
    if (window.is_over()) break;
    Tally tally;
    const auto started = BenchClock::now();
    if (auto opened = system.open(stream, range); !opened) return opened;
    const auto first = system.next(stream, tally);
    opener.ns.add(ns_between(started, BenchClock::now()));
    system.close(stream);
    if (!first) return tl::unexpected(first.error());
    if (auto right = check_begin_of(system, files, range, tally); !right) return right;
    at = std::max(at + kOpenPause, BenchClock::now());
  }
  return {};
}

}  // namespace

double WindowResult::bytes() const {
  return std::accumulate(stream_bytes.begin(), stream_bytes.end(), 0.0);
}

Result<WindowResult> run_window(System& system, const FileSet& files,
                                const std::vector<WindowStream>& streams, double seconds, double run_up_s,
                                Opener* opener) {
  std::vector<Runner> runners;
  for (std::size_t i = 0; i < streams.size(); ++i) runners.emplace_back(system, files, i, streams[i]);
  const auto begin = BenchClock::now();
  Window window = {
      .begin = begin, .counts_from = begin + to_duration(run_up_s), .end = begin + to_duration(seconds)};
  std::vector<std::thread> threads;
  for (Runner& runner : runners) threads.emplace_back(&Runner::run, &runner, std::ref(window));
  Result<void> opened;
  if (opener != nullptr) {
    opened = measure_openings(system, files, streams.size(), *opener, window);
    if (!opened) window.has_failed = true;
  }
  for (std::thread& thread : threads) thread.join();
  if (!opened) return tl::unexpected(opened.error());
  if (interrupted()) return fail(Code::kCancelled, "interrupted");
  WindowResult result = {.seconds = seconds - run_up_s, .stream_bytes = {}};
  for (const Runner& runner : runners)
    if (auto added = runner.add_to(result); !added) return tl::unexpected(added.error());
  return result;
}

}  // namespace nvr::bench
