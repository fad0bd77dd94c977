// Scenario "latency": how long a consumer waits for a chunk of a recording in the page cache. One stream. An
// idle consumer sleeps for a millisecond before each question, so that everybody is asleep when it asks; a
// busy one asks again as soon as it has read what it got. Beside the systems: what one wake of another
// process costs and what one pread costs, in the same rounds.
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <thread>

#include "shm/unique_fd.h"
#include "tools/bench/compare.h"
#include "tools/bench/histogram.h"
#include "tools/bench/hot_files.h"
#include "tools/bench/ping_pong.h"

namespace nvr::bench {
namespace {

using BenchClock = std::chrono::steady_clock;

constexpr std::array kSystems = {make_pread_system,       make_thread_pool_system, make_seed_system,
                                 make_unix_socket_system, make_nvr_mmap_system,    make_nvr_io_uring_system};
constexpr auto kPause = std::chrono::milliseconds(1);
constexpr std::size_t kIdleAsks = 1000;  // over all rounds
constexpr std::size_t kBusyAsks = 6000;  // likewise; of next chunks ten times as many
constexpr std::chrono::nanoseconds kNoPause{0};
constexpr double kMostOfTheParts = 1.3;
constexpr double kMostNextUs = 3;

constexpr const char* kOpenIdle = "open to first chunk, idle";
constexpr const char* kOpenBusy = "open to first chunk, busy";
constexpr const char* kNextIdle = "next chunk, idle";
constexpr const char* kNextBusy = "next chunk, busy";
constexpr std::array kQuestions = {kOpenIdle, kOpenBusy, kNextIdle, kNextBusy};
constexpr const char* kIdle = "idle";
constexpr const char* kBusy = "busy";

struct Part {
  std::string part;
  std::string system;
  Histogram ns = {};
};

std::uint64_t ns_until(BenchClock::time_point end, BenchClock::time_point begin) {
  return static_cast<std::uint64_t>(std::chrono::nanoseconds(end - begin).count());
}

// From the question until the consumer has the chunk's address; reading it is the consumer's own work.
Result<void> ask_next(System& system, const FileSet& files, std::size_t count, std::chrono::nanoseconds pause,
                      Histogram& ns) {
  std::size_t file = 0;
  bool is_open = false;
  for (std::size_t asked = 0; asked < count;) {
    if (!is_open) {
      const FileRange whole = {.file = file, .begin = 0, .end = files.file_bytes()};
      if (auto opened = system.open(0, whole); !opened) return opened;
      file = (file + 1) % files.count();
    }
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
    Tally tally = {.notes_arrival = true};
    const auto started = BenchClock::now();
    const auto more = system.next(0, tally);
    if (!more) return tl::unexpected(more.error());
    if (*more && is_open) {  // not the first one of a stream: that is another question
      ns.add(ns_until(tally.arrived_at, started));
      ++asked;
    }
    is_open = *more;
    if (!is_open) system.close(0);
  }
  // To the end, since not every system can stop before.
  Tally rest;
  for (auto more = Result<bool>(is_open); *more;)
    if (more = system.next(0, rest); !more) return tl::unexpected(more.error());
  if (is_open) system.close(0);
  return {};
}

Result<void> ask_open(System& system, const FileSet& files, std::size_t count, std::chrono::nanoseconds pause,
                      Histogram& ns) {
  const std::uint64_t chunks = files.file_bytes() / kChunkBytes;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t begin = (i * 37) % chunks * kChunkBytes;  // 37: no place is near the one before
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
    Tally tally = {.notes_arrival = true};
    const auto started = BenchClock::now();
    if (auto opened = system.open(0, {.file = i % files.count(), .begin = begin, .end = begin + kChunkBytes});
        !opened)
      return opened;
    if (const auto first = system.next(0, tally); !first) return tl::unexpected(first.error());
    system.close(0);
    ns.add(ns_until(tally.arrived_at, started));
    if (tally.sum != files.expected_sum(i % files.count(), begin, begin + kChunkBytes))
      return fail(Code::kDataLoss, fmt::format("{} delivered wrong bytes", system.name()));
  }
  return {};
}

// pread alone, of a file that is open: as much of an answer as cannot be left out.
Result<void> ask_pread(const FileSet& files, std::size_t count, std::chrono::nanoseconds pause,
                       Histogram& ns) {
  const shm::UniqueFd fd(open(files.path(0).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open " + files.path(0));
  std::vector<std::byte> buffer(kChunkBytes);
  const std::uint64_t chunks = files.file_bytes() / kChunkBytes;
  for (std::size_t i = 0; i < count; ++i) {
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
    const auto started = BenchClock::now();
    const ssize_t got =
        pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(i * 37 % chunks * kChunkBytes));
    ns.add(ns_until(BenchClock::now(), started));
    if (got != static_cast<ssize_t>(buffer.size())) return fail_errno(errno, "cannot read " + files.path(0));
  }
  return {};
}

void merge(std::vector<Part>& parts, std::string_view part, std::string_view system, const Histogram& ns) {
  for (Part& known : parts)
    if (known.part == part && known.system == system) return known.ns.add_all(ns);
  parts.push_back({.part = std::string(part), .system = std::string(system), .ns = ns});
}

// What the questions are made of.
Result<void> ask_parts(const FileSet& files, std::size_t idle_asks, std::size_t busy_asks,
                       std::vector<Part>& parts) {
  for (const bool idle : {true, false}) {
    const std::size_t asks = idle ? idle_asks : busy_asks;
    const std::chrono::nanoseconds pause = idle ? kPause : kNoPause;
    const char* const what = idle ? kIdle : kBusy;
    for (const Wake wake : {Wake::kFutex, Wake::kEventfd}) {
      const auto wakes = measure_wakes(wake, asks, pause);
      if (!wakes) return tl::unexpected(wakes.error());
      merge(parts, std::string("one wake, ") + what, wake == Wake::kFutex ? "futex" : "eventfd", *wakes);
    }
    Histogram reads;
    if (auto read = ask_pread(files, asks, pause, reads); !read) return read;
    merge(parts, std::string("64 KiB of an open file, ") + what, "pread", reads);
  }
  return {};
}

// Fewer where measurements are to be shorter than they usually are.
std::size_t share_of(std::size_t asks, std::size_t rounds, const BenchOptions& options) {
  constexpr std::int64_t kUsualMs = 200;
  const auto ms = static_cast<std::size_t>(std::clamp<std::int64_t>(options.run_time.count(), 1, kUsualMs));
  return std::max<std::size_t>(1, asks * ms / kUsualMs / rounds);
}

Result<void> run_round(const Systems& systems, const FileSet& files, std::size_t rounds,
                       const BenchOptions& options, std::vector<Part>& parts) {
  const std::size_t idle_asks = share_of(kIdleAsks, rounds, options);
  const std::size_t busy_asks = share_of(kBusyAsks, rounds, options);
  if (auto asked = ask_parts(files, idle_asks, busy_asks, parts); !asked) return asked;
  for (const char* const question : kQuestions)
    for (const auto& system : systems) {
      if (interrupted()) return fail(Code::kCancelled, "interrupted");
      Histogram ns;
      const bool is_open = question == kOpenIdle || question == kOpenBusy;
      const bool is_idle = question == kOpenIdle || question == kNextIdle;
      const std::size_t asks = is_idle ? idle_asks : (is_open ? busy_asks : 10 * busy_asks);
      auto asked = is_open ? ask_open(*system, files, asks, is_idle ? kPause : kNoPause, ns)
                           : ask_next(*system, files, asks, is_idle ? kPause : kNoPause, ns);
      if (!asked) return asked;
      merge(parts, question, system->name(), ns);
    }
  return {};
}

double in_us(std::uint64_t ns) {
  return static_cast<double>(ns) / 1e3;
}

std::vector<Row> to_rows(const std::vector<Part>& parts) {
  std::vector<Row> rows;
  for (const Part& part : parts)
    rows.push_back({.scenario = "latency",
                    .part = part.part,
                    .system = part.system,
                    .streams = 1,
                    .latency = Latency{.p50_us = in_us(part.ns.percentile(0.5)),
                                       .p99_us = in_us(part.ns.percentile(0.99)),
                                       .p999_us = in_us(part.ns.percentile(0.999))}});
  std::ranges::stable_sort(rows, {}, &Row::part);
  return rows;
}

double p50_of(const std::vector<Row>& rows, std::string_view part, std::string_view system) {
  const Row* const row = find_row(rows, system, 1, part);
  return row != nullptr && row->latency ? row->latency->p50_us : 0;
}

std::vector<Target> targets_of(const std::vector<Row>& rows) {
  std::vector<Target> targets;
  const double least = p50_of(rows, "one wake, idle", "eventfd") + p50_of(rows, "one wake, idle", "futex") +
                       p50_of(rows, "64 KiB of an open file, idle", "pread");
  for (const std::string system : {"nvr_mmap", "nvr_io_uring"}) {
    const double open = p50_of(rows, kOpenIdle, system);
    if (open == 0) continue;
    targets.push_back({.what = system + ": open to first chunk, idle, p50 / (eventfd + futex + pread)",
                       .measured = ratio_of(open, least),
                       .at_least = false,
                       .bound = kMostOfTheParts});
    targets.push_back({.what = system + ": next chunk, busy, p50 us",
                       .measured = p50_of(rows, kNextBusy, system),
                       .at_least = false,
                       .bound = kMostNextUs,
                       .strict = true});
  }
  return targets;
}

}  // namespace

Result<Findings> run_latency(const BenchOptions& options) {
  const auto laboratory = HotFiles::create(options);
  if (!laboratory) return tl::unexpected(laboratory.error());
  fmt::print(
      "latency: recordings in the page cache, 1 stream, {} rounds, {}\n"
      "         until the consumer has the chunk; idle: it slept for 1 ms before it asked\n\n",
      options.rounds, describe_machine());
  std::fflush(stdout);
  const auto systems = make_systems(kSystems, laboratory->setup(options));
  if (!systems) return tl::unexpected(systems.error());
  std::vector<Part> warm_up;
  if (auto done = run_round(*systems, laboratory->files(), 10, options, warm_up); !done)
    return tl::unexpected(done.error());
  const auto foreign = ForeignLoad::watch(*systems);
  if (!foreign) return tl::unexpected(foreign.error());
  std::vector<Part> parts;
  for (std::size_t round = 0; round < options.rounds; ++round)
    if (auto done = run_round(*systems, laboratory->files(), options.rounds, options, parts); !done)
      return tl::unexpected(done.error());
  Findings findings = {.rows = to_rows(parts), .references = {}, .targets = {}};
  findings.targets = targets_of(findings.rows);
  const auto foreign_cpus = foreign->cpus();
  if (!foreign_cpus) return tl::unexpected(foreign_cpus.error());
  findings.foreign_cpus = *foreign_cpus;
  return findings;
}

}  // namespace nvr::bench
