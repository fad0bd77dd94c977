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
#include <nlohmann/json.hpp>

#include "tools/bench/run.h"
#include "tools/bench/text_files.h"
#include "tools/common/command_line.h"

namespace nvr::bench {
namespace {

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

// A scenario that is to be run.
struct Job {
  const Scenario& scenario;
  BenchOptions options;
  Plan plan;
};

std::vector<Job> jobs_of(std::string_view wanted, const BenchOptions& options) {
  std::vector<Job> jobs;
  for (const Scenario& scenario : kScenarios)
    if (wanted == "all" || wanted == scenario.name)
      jobs.push_back({.scenario = scenario,
                      .options = wanted == "all" ? shortened(scenario.name, options) : options,
                      .plan = {}});
  for (Job& job : jobs) job.plan = job.scenario.plan(job.options);  // refers to the options
  return jobs;
}

// Of several scenarios one that cannot run here, or ^C, leaves the figures of the others as they are.
Result<std::vector<Row>> run_jobs(const std::vector<Job>& jobs) {
  double expected = 0;
  for (const Job& job : jobs) expected += expected_s(job.plan);
  Progress progress(expected);
  std::vector<Row> rows;
  std::vector<Target> targets;
  for (const Job& job : jobs) {
    auto findings = run_scenario(job.scenario.name, job.plan, job.options, progress);
    progress.clear();
    if (findings) {
      print_findings(*findings);
      std::ranges::move(findings->rows, std::back_inserter(rows));
      std::ranges::move(findings->targets, std::back_inserter(targets));
    } else if (jobs.size() == 1) {
      return tl::unexpected(findings.error());
    } else {
      fmt::print("{} is left out: {}\n", job.scenario.name, findings.error().message);
    }
    if (jobs.size() > 1) fmt::print("\n");
    if (interrupted()) break;
  }
  if (jobs.size() > 1) print_targets(targets);
  return rows;
}

Result<void> run_and_write(const std::vector<Job>& jobs, const std::string& json_path) {
  const auto rows = run_jobs(jobs);
  if (!rows) return tl::unexpected(rows.error());
  if (json_path.empty()) return {};
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  append_json(*rows, list);
  return write_text(list.dump(2) + '\n', json_path);
}

void add_disk_options(CLI::App& app, DiskOptions& disk) {
  disk.script = default_slow_disk();
  app.add_option("--parts", disk.parts, "disk: what to measure")
      ->delimiter(',')
      ->check(CLI::IsMember({"throughput", "viewers", "first-chunk"}))
      ->capture_default_str();
  app.add_option("--streams", disk.streams, "disk: numbers of streams for throughput")
      ->delimiter(',')
      ->check(CLI::Range(std::size_t{1}, std::size_t{79}))
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
  std::uint64_t file_mib = options.files.bytes >> 20;
  std::int64_t run_ms = options.run_time.count();

  CLI::App app("Compares ways of getting recordings' bytes to a consumer.", "nvr-bench");
  app.footer(kHelp);
  std::vector<std::string> names = {"all"};
  for (const Scenario& known : kScenarios) names.emplace_back(known.name);
  app.add_option("SCENARIO", scenario, "What to measure")->check(CLI::IsMember(names))->capture_default_str();
  app.add_option("--json", json_path, "Write the figures to this file")->option_text("FILE");
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
  app.add_option("--owner", options.files.owner,
                 "The user (a number) that the files belong to, as recorders own theirs; root only");
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
  const auto done = run_and_write(jobs_of(scenario, options), json_path);
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
