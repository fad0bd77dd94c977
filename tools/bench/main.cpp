// nvr-bench: our engines and the alternatives on the same files in one run.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "tools/bench/scenario.h"
#include "tools/bench/show.h"
#include "tools/bench/system.h"
#include "tools/common/command_line.h"

namespace nvr::bench {
namespace {

struct Scenario {
  std::string_view name;
  Result<Findings> (*run)(const BenchOptions&);
};

constexpr std::array kScenarios = {Scenario{"hot", run_hot},
                                   Scenario{"latency", run_latency},
                                   Scenario{"small", run_small},
                                   Scenario{"scale", run_scale},
                                   Scenario{"event-loop", run_event_loop},
                                   Scenario{"stream-out", run_stream_out},
                                   Scenario{"cold", run_cold},
                                   Scenario{"disk", run_disk}};

constexpr const char* kHelp = R"(Scenarios:
  hot         recordings in the page cache: GB/s and CPU seconds per GB with 1, 4, 16 and 64 streams and with 16
              client processes, and the time from open to the bytes of the first chunk (1 stream, 64 KiB,
              everybody asleep before)
  latency     recordings in the page cache, 1 stream: the time until the first and until the next chunk is there,
              of an idle and of a busy consumer, beside wakes of another process by futex and by eventfd
  small       random ranges of 4 and 64 KiB of 256 recordings in the page cache, 1 and 64 outstanding: opens/s
  scale       recordings in the page cache, 1 to 1000 streams of up to 200 client processes: throughput, fairness,
              the daemon's own memory, and what it does while nobody reads
  event-loop  recordings in the page cache, 256 streams: one epoll thread, and a thread for each
  stream-out  recordings in the page cache, sent through TCP: chunks of ours, sendfile(), pread() and send()
  cold        recordings on the disk only (dropped from the page cache before each measurement), 1 and 16 streams
  disk        recordings on a modelled spinning disk (tools/slow-disk; root only): the throughput of 1, 4, 16 and
              64 streams as a share of the disk's, 40 viewers beside an export, first chunks under 16 streams
  all         each of them, shortened: less than ten minutes
Systems:
  memcpy        the floor: a copy from a map of the recording that stays to a window, by the consumer itself (hot)
  pread         64 KiB at a time, page cache to buffer, by the consumer itself
  thread_pool   the same on 16 threads, a hand-over for each read, as tokio::fs, libuv and nginx's aio do it
  seed          in-process reader thread: mmap + MADV_SEQUENTIAL, one outstanding chunk per stream, a fresh
                buffer for each chunk, handed over through mutex and condition variable
  unix_socket   another process that sends the bytes, a stream socket for each stream (hot, latency)
  nvr_mmap      nvr-readerd --engine mmap and its client library
  nvr_io_uring  the same with --engine io_uring
  fio           fio's io_uring engine on the same files, 64 KiB reads, 16 in flight, if fio is installed (cold)
A consumer thread for each stream reads every cache line of what it gets, and the bytes are checked.
Recordings are written frame by frame, as recorders do. Systems take turns; figures are medians of the rounds.)";

std::atomic<bool> stop_requested = false;

void request_stop(int) {
  stop_requested = true;
}

// nvr-readerd of the same build, or else the one that is installed with this program.
std::filesystem::path default_daemon() {
  std::error_code error;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const auto built = here / ".." / "daemon" / "nvr-readerd";
  const auto beside = here / "nvr-readerd";
  return std::filesystem::exists(beside, error) ? beside : built;
}

// tools/slow-disk of the tree that this was built in, at build/ or build/NAME/, or beside this program.
std::filesystem::path default_slow_disk() {
  std::error_code error;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const auto* const way : {"slow-disk", "../../tools/slow-disk", "../../../tools/slow-disk"})
    if (auto script = here / way; std::filesystem::is_regular_file(script, error)) return script;
  return here / "slow-disk";
}

// The script is to take the nvr-slowdisk of the same build.
void name_slowdisk() {
  std::error_code error;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const auto* const way : {"nvr-slowdisk", "slowdisk/nvr-slowdisk"})
    if (const auto program = here / way; std::filesystem::exists(program, error))
      setenv("NVR_SLOWDISK", program.c_str(), 0);
}

// Shorter than by itself, for a run of everything within ten minutes.
BenchOptions shortened(std::string_view scenario, BenchOptions options) {
  constexpr std::uint64_t kFileBytes = 32U << 20;
  constexpr std::size_t kRounds = 5;
  constexpr std::size_t kFewRounds = 3;
  constexpr std::array<std::string_view, 3> kSlow = {"hot", "cold", "scale"};  // a round takes many seconds
  const bool is_slow = std::ranges::find(kSlow, scenario) != kSlow.end();
  options.files.bytes = std::min(options.files.bytes, kFileBytes);
  options.rounds = std::min(options.rounds, is_slow ? kFewRounds : kRounds);
  options.disk.parts = {"throughput"};
  options.disk.streams = {kUsualStreams};
  options.disk.systems = {"seed", "nvr_mmap", "nvr_io_uring"};
  options.disk.seconds = std::min(options.disk.seconds, 8.0);
  return options;
}

// Prints and draws what one of several scenarios finds.
Result<Findings> run_one(const Scenario& scenario, const BenchOptions& options,
                         const std::filesystem::path& svg) {
  auto findings = scenario.run(shortened(scenario.name, options));
  if (!findings) return findings;
  print_findings(*findings);
  fmt::print("\n");
  if (svg.empty()) return findings;
  const auto drawn = write_svg(std::span(&*findings, 1), svg / fmt::format("{}.svg", scenario.name));
  if (!drawn) return tl::unexpected(drawn.error());
  return findings;
}

// Every scenario. One that cannot run here leaves the figures of the others as they are.
std::vector<Findings> run_all(const BenchOptions& options, const std::filesystem::path& svg) {
  std::vector<Findings> all;
  for (const Scenario& scenario : kScenarios) {
    if (interrupted()) break;
    if (scenario.name == "disk" && geteuid() != 0) {
      fmt::print("disk is left out: only root can put up a modelled disk\n");
      continue;
    }
    auto findings = run_one(scenario, options, svg);
    if (findings)
      all.push_back(std::move(*findings));
    else
      fmt::print("{} is left out: {}\n\n", scenario.name, findings.error().message);
  }
  std::vector<Target> targets;
  for (const Findings& findings : all) std::ranges::copy(findings.targets, std::back_inserter(targets));
  print_targets(targets);
  return all;
}

// The one that is wanted, or all.
Result<std::vector<Findings>> run_scenarios(std::string_view wanted, const BenchOptions& options,
                                            const std::string& svg_path) {
  if (wanted == "all") {
    std::error_code error;
    if (!svg_path.empty() && !std::filesystem::create_directories(svg_path, error) && error)
      return fail_errno(error.value(), "cannot make " + svg_path);
    return run_all(options, svg_path);
  }
  auto findings = std::ranges::find(kScenarios, wanted, &Scenario::name)->run(options);
  if (!findings) return tl::unexpected(findings.error());
  print_findings(*findings);
  std::vector<Findings> all;
  all.push_back(std::move(*findings));
  return all;
}

Result<void> run_and_write(std::string_view wanted, const BenchOptions& options, const std::string& json_path,
                           const std::string& svg_path) {
  const auto all = run_scenarios(wanted, options, svg_path);
  if (!all) return tl::unexpected(all.error());
  Result<void> written;
  if (!json_path.empty()) written = write_json(*all, json_path);
  if (written && !svg_path.empty())
    written = write_svg(*all, wanted == "all" ? svg_path + "/speed.svg" : svg_path);
  return written;
}

void add_disk_options(CLI::App& app, DiskOptions& disk) {
  disk.script = default_slow_disk();
  app.add_option("--parts", disk.parts, "disk: what to measure")
      ->delimiter(',')
      ->check(CLI::IsMember({"throughput", "viewers", "first-chunk"}))
      ->capture_default_str();
  app.add_option("--streams", disk.streams, "disk: numbers of streams for throughput")
      ->delimiter(',')
      ->check(CLI::Range(std::size_t{1}, kMaxStreams - 1))
      ->capture_default_str();
  app.add_option("--systems", disk.systems, "disk: which systems (default: all)")
      ->delimiter(',')
      ->check(CLI::IsMember({"seed", "pread", "nvr_mmap", "nvr_io_uring"}));
  app.add_option("--read-ahead-kb", disk.read_ahead_kib, "disk: the kernel's read-ahead for it")
      ->check(CLI::Range(0U, 65536U))
      ->capture_default_str();
  app.add_option(
         "--seconds", disk.seconds,
         "disk: time of each measurement of throughput with up to 16 streams; with more in proportion")
      ->check(CLI::Range(1.0, 600.0))
      ->capture_default_str();
  app.add_option("--viewer-seconds", disk.viewer_seconds, "disk: time of each measurement of viewers")
      ->check(CLI::Range(5.0, 3600.0))
      ->capture_default_str();
  app.add_option("--first-chunk-seconds", disk.first_chunk_seconds, "disk: time of each measurement of opens")
      ->check(CLI::Range(2.0, 600.0))
      ->capture_default_str();
  app.add_option("--slow-disk", disk.script,
                 "disk: tools/slow-disk to run (default: of the same source tree)");
}

int run(int argc, char** argv) {
  BenchOptions options = {.directory = "/var/tmp", .daemon = default_daemon(), .files = {}};
  std::string scenario = "hot";
  std::string json_path;
  std::string svg_path;
  std::uint64_t file_mib = options.files.bytes >> 20;
  std::int64_t run_ms = options.run_time.count();

  CLI::App app("Compares ways of getting recordings' bytes to a consumer.", "nvr-bench");
  app.footer(kHelp);
  std::vector<std::string> names = {"all"};
  for (const Scenario& known : kScenarios) names.emplace_back(known.name);
  app.add_option("SCENARIO", scenario, "What to measure")->check(CLI::IsMember(names))->capture_default_str();
  app.add_option("--json", json_path, "Write the figures to this file")->option_text("FILE");
  app.add_option("--svg", svg_path, "Draw the figures to this file; all: to files in this directory")
      ->option_text("PATH");
  app.add_option("--repeat", options.rounds, "Rounds")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--dir", options.directory, "Where to put the files: a directory on a real disk")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  app.add_option("--daemon", options.daemon,
                 "nvr-readerd to run (default: of the same build or installation)");
  app.add_flag("--one-consumer", options.one_consumer,
               "One consumer thread that takes from all streams in turn, instead of one for each");
  app.add_option(
         "--device-kind", options.device_kind,
         "What nvr-readerd takes the disk for; virtual disks are often said to be rotational and are not")
      ->check(CLI::IsMember({"auto", "rotational", "solid"}))
      ->capture_default_str();
  app.add_option("--file-mib", file_mib, "Size of each of the 16 files")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--run-ms", run_ms, "Shortest time of one measurement")
      ->check(CLI::Range(0, 60'000))
      ->capture_default_str();
  app.add_option("--client-processes", options.client_processes, "scale: the most client processes")
      ->check(CLI::Range(5, 250))
      ->capture_default_str();
  add_disk_options(app, options.disk);
  if (const auto code = tools::parse_command_line(app, argc, argv)) return *code;
  options.files.bytes = file_mib << 20;
  options.run_time = std::chrono::milliseconds(run_ms);

  name_slowdisk();
  signal(SIGINT, request_stop);
  signal(SIGTERM, request_stop);
  const auto done = run_and_write(scenario, options, json_path, svg_path);
  if (done) return tools::kExitOk;
  fmt::print(stderr, "nvr-bench: {}\n", done.error().message);
  return tools::exit_code_of(done.error().code);
}

}  // namespace

bool interrupted() {
  return stop_requested;
}

}  // namespace nvr::bench

int main(int argc, char** argv) {
  return nvr::bench::run(argc, argv);
}
