// Scenario "event-loop": 256 streams of one client, read by one thread under epoll through native_handle(),
// against a thread for each stream that blocks in next(). Recordings in the page cache; every cache line
// read.
#include <errno.h>
#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <optional>
#include <thread>

#include "shm/unique_fd.h"
#include "tools/bench/compare.h"
#include "tools/bench/cpu_time.h"
#include "tools/bench/hot_files.h"
#include "tools/bench/nvr_system.h"

namespace nvr::bench {
namespace {

using BenchClock = std::chrono::steady_clock;

constexpr std::size_t kStreams = 256;
constexpr std::uint32_t kSlots = 8;
constexpr const char* kOneThread = "one epoll thread";
constexpr const char* kThreads = "a thread for each stream";

// One stream, which goes from recording to recording until it is stopped.
class Reading {
 public:
  Reading(Client& client, const FileSet& files, std::size_t file)
      : client_(client), files_(files), file_(file % files.count()) {}

  [[nodiscard]] Result<void> open() {
    auto stream = client_.open({.recording = files_.id(file_), .begin = 0, .end = files_.file_bytes()});
    if (!stream) return tl::unexpected(stream.error());
    stream_.emplace(std::move(*stream));
    return {};
  }

  // Takes what is there. False: the recording has ended, and the next is open.
  [[nodiscard]] Result<bool> take_all() {
    for (;;) {
      const auto chunk = stream_->try_next();
      if (!chunk) return go_on();
      if (*chunk)
        tally_.take((*chunk)->bytes());
      else if (chunk->error().code == Code::kDeadlineExceeded)
        return true;
      else
        return tl::unexpected(chunk->error());
    }
  }

  // Until then, blocking.
  [[nodiscard]] Result<void> take_until(BenchClock::time_point end) {
    if (auto opened = open(); !opened) return opened;
    while (BenchClock::now() < end) {
      const auto chunk = stream_->next();
      if (chunk && !*chunk) return tl::unexpected(chunk->error());
      if (chunk)
        tally_.take((*chunk)->bytes());
      else if (const auto next = go_on(); !next)
        return tl::unexpected(next.error());
    }
    return close();
  }

  [[nodiscard]] Result<void> close() {
    stream_.reset();
    if (tally_.sum != files_.expected_sum(file_, 0, tally_.bytes))
      return fail(Code::kDataLoss, "wrong bytes were delivered");
    bytes_ += tally_.bytes;
    tally_ = {};
    return {};
  }

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  [[nodiscard]] Result<bool> go_on() {
    if (auto closed = close(); !closed) return tl::unexpected(closed.error());
    file_ = (file_ + 1) % files_.count();
    if (auto opened = open(); !opened) return tl::unexpected(opened.error());
    return false;
  }

  Client& client_;
  const FileSet& files_;
  std::size_t file_;
  std::optional<Stream> stream_ = {};
  Tally tally_ = {};  // of the recording that is open
  std::uint64_t bytes_ = 0;
};

// Waits for news, takes all there is of each stream, and so on.
Result<void> read_in_one_thread(Client& client, std::vector<Reading>& readings, BenchClock::time_point end) {
  const shm::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  event.events = EPOLLIN;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, client.native_handle(), &event) != 0)
    return fail_errno(errno, "cannot watch a client");
  for (Reading& reading : readings)
    if (auto opened = reading.open(); !opened) return opened;
  while (BenchClock::now() < end) {
    if (auto news = client.dispatch(); !news) return news;
    for (Reading& reading : readings) {
      Result<bool> taken = false;
      while (taken && !*taken) taken = reading.take_all();
      if (!taken) return tl::unexpected(taken.error());
    }
    epoll_wait(epoll.get(), &event, 1, 100);
  }
  for (Reading& reading : readings)
    if (auto closed = reading.close(); !closed) return closed;
  return {};
}

Result<void> read_in_threads(std::vector<Reading>& readings, BenchClock::time_point end) {
  std::vector<Result<void>> outcomes(readings.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < readings.size(); ++i)
    threads.emplace_back([&, i] { outcomes[i] = readings[i].take_until(end); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& outcome : outcomes)
    if (!outcome) return outcome;
  return {};
}

struct Contestant {
  std::string engine;
  DaemonProcess daemon;
  Client client;
  Samples one_thread = {};
  Samples threads = {};
};

Result<Flow> measure(Contestant& contestant, const FileSet& files, bool one_thread,
                     std::chrono::nanoseconds window) {
  std::vector<Reading> readings;
  for (std::size_t i = 0; i < kStreams; ++i) readings.emplace_back(contestant.client, files, i);
  const auto daemon_before = cpu_ns_of(contestant.daemon.pid());
  const std::uint64_t own_before = own_cpu_ns();
  const auto started = BenchClock::now();
  const auto done = one_thread ? read_in_one_thread(contestant.client, readings, started + window)
                               : read_in_threads(readings, started + window);
  if (!done) return tl::unexpected(done.error());
  const std::chrono::duration<double> took = BenchClock::now() - started;
  const auto daemon_after = cpu_ns_of(contestant.daemon.pid());
  if (!daemon_before || !daemon_after) return fail(Code::kUnavailable, "nvr-readerd has ended");
  double bytes = 0;
  for (const Reading& reading : readings) bytes += static_cast<double>(reading.bytes());
  const std::uint64_t cpu_ns = *daemon_after - *daemon_before + own_cpu_ns() - own_before;
  return Flow{.gb_per_s = bytes / 1e9 / took.count(),
              .cpu_s_per_gb = ratio_of(static_cast<double>(cpu_ns), bytes),
              .chunks_per_s = bytes / static_cast<double>(kChunkBytes) / took.count()};
}

Result<std::vector<Contestant>> start_all(const SystemSetup& setup) {
  std::vector<Contestant> contestants;
  for (const std::string engine : {"mmap", "io_uring"}) {
    auto daemon = start_nvr_daemon(setup, engine);
    if (!daemon && engine == "io_uring") {
      fmt::print("nvr_io_uring is left out: {}\n", daemon.error().message);
      continue;
    }
    if (!daemon) return tl::unexpected(daemon.error());
    auto client = connect_nvr_client(setup, engine);
    if (!client) return tl::unexpected(client.error());
    contestants.push_back({.engine = engine, .daemon = std::move(*daemon), .client = std::move(*client)});
  }
  return contestants;
}

Result<std::vector<Row>> measure_all(const HotFiles& recordings, const BenchOptions& options) {
  SystemSetup setup = recordings.setup(options);
  setup.streams = kStreams;
  setup.slots = kSlots;
  auto contestants = start_all(setup);
  if (!contestants) return tl::unexpected(contestants.error());
  for (std::size_t round = 0; round <= options.rounds; ++round)  // the first one warms up
    for (Contestant& contestant : *contestants)
      for (const bool one_thread : {true, false}) {
        if (interrupted()) return fail(Code::kCancelled, "interrupted");
        const auto flow = measure(contestant, recordings.files(), one_thread, 2 * options.run_time);
        if (!flow) return tl::unexpected(flow.error());
        if (round > 0) (one_thread ? contestant.one_thread : contestant.threads).add(*flow);
      }
  std::vector<Row> rows;
  for (const Contestant& contestant : *contestants)
    for (const bool one_thread : {true, false}) {
      rows.push_back(to_row("event-loop", "nvr_" + contestant.engine, kStreams,
                            one_thread ? contestant.one_thread : contestant.threads));
      rows.back().part = one_thread ? kOneThread : kThreads;
    }
  return rows;
}

}  // namespace

Result<Findings> run_event_loop(const BenchOptions& options) {
  const auto recordings = HotFiles::create(options);
  if (!recordings) return tl::unexpected(recordings.error());
  fmt::print(
      "event-loop: {} streams of one client, windows of {} chunks, {} rounds, {}\n"
      "            recordings in the page cache, every cache line read\n\n",
      kStreams, kSlots, options.rounds, describe_machine());
  std::fflush(stdout);
  const auto foreign = ForeignLoad::watch_children();
  auto rows = measure_all(*recordings, options);
  if (!rows) return tl::unexpected(rows.error());
  return Findings{
      .rows = std::move(*rows), .references = {}, .targets = {}, .foreign_cpus = foreign.cpus().value_or(0)};
}

}  // namespace nvr::bench
