// nvr-bench: our engines and the alternatives on the same files in one run.
#include <fmt/format.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "tools/bench/scenario.h"
#include "tools/bench/system.h"
#include "tools/common/command_line.h"

namespace nvr::bench {
namespace {

struct Scenario {
  std::string_view name;
  Result<Findings> (*run)(const BenchOptions&);
};

constexpr std::array kScenarios = {Scenario{"hot", run_hot}, Scenario{"cold", run_cold},
                                   Scenario{"disk", run_disk}};

constexpr const char* kHelp = R"(Scenarios:
  hot   recordings in the page cache: GB/s and CPU seconds per GB with 1, 4 and 16 streams, and the time
        from open to the bytes of the first chunk (1 stream, 64 KiB, everybody asleep before)
  cold  recordings on the disk only (dropped from the page cache before each measurement), 1 and 16 streams
  disk  recordings on a modelled spinning disk (tools/slow-disk; root only): the throughput of 1, 4, 16 and 64
        streams as a share of the disk's, 40 viewers beside an export, first chunks under 16 running streams
Systems:
  pread         64 KiB at a time, page cache to buffer, by the consumer itself
  seed          in-process reader thread: mmap + MADV_SEQUENTIAL, one outstanding chunk per stream, a fresh
                buffer for each chunk, handed over through mutex and condition variable
  unix_socket   another process that sends the bytes, a stream socket for each stream (hot)
  nvr_mmap      nvr-readerd --engine mmap and its client library
  nvr_io_uring  the same with --engine io_uring
  fio           fio's io_uring engine on the same files, 64 KiB reads, 16 in flight, if fio is installed (cold)
A consumer thread for each stream reads every cache line of what it gets, and the bytes are checked.
Recordings are written frame by frame, as recorders do. Systems take turns; figures are medians of the rounds.)";

constexpr double kQuietCpus = 0.1;  // what others may use without being noticed

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

int show_disk(const Findings& findings, const std::string& json_path, const std::string& svg_path) {
  print_disk_table(findings.disk);
  print_targets(findings.targets);
  Result<void> written;
  if (!json_path.empty()) written = write_disk_json(findings.disk, json_path);
  if (written && !svg_path.empty()) written = write_disk_svg(findings.disk, svg_path);
  if (written) return tools::kExitOk;
  fmt::print(stderr, "nvr-bench: {}\n", written.error().message);
  return tools::kExitOther;
}

int show(const Findings& findings, const std::string& json_path, const std::string& svg_path) {
  if (!findings.disk.empty()) return show_disk(findings, json_path, svg_path);
  print_table(findings.rows, findings.references);
  print_targets(findings.targets);
  fmt::print("\nother processes kept {:.2f} CPUs busy meanwhile{}\n", findings.foreign_cpus,
             findings.foreign_cpus > kQuietCpus ? ": too many for figures to rely on" : "");
  if (json_path.empty()) return tools::kExitOk;
  const auto written = write_json(findings.rows, json_path);
  if (written) return tools::kExitOk;
  fmt::print(stderr, "nvr-bench: {}\n", written.error().message);
  return tools::kExitOther;
}

void add_disk_options(CLI::App& app, DiskOptions& disk, std::string& svg_path) {
  disk.script = default_slow_disk();
  app.add_option("--svg", svg_path, "disk: draw the shares to this file")->option_text("FILE");
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
  std::vector<std::string> names;
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
  app.add_option("--run-ms", run_ms, "Shortest time of one measurement")
      ->check(CLI::Range(0, 60'000))
      ->capture_default_str();
  add_disk_options(app, options.disk, svg_path);
  if (const auto code = tools::parse_command_line(app, argc, argv)) return *code;
  options.files.bytes = file_mib << 20;
  options.run_time = std::chrono::milliseconds(run_ms);

  name_slowdisk();
  signal(SIGINT, request_stop);
  signal(SIGTERM, request_stop);
  for (const Scenario& known : kScenarios) {
    if (known.name != scenario) continue;
    const auto findings = known.run(options);
    if (findings) return show(*findings, json_path, svg_path);
    fmt::print(stderr, "nvr-bench: {}\n", findings.error().message);
    return tools::exit_code_of(findings.error().code);
  }
  return tools::kExitUsage;
}

}  // namespace

bool interrupted() {
  return stop_requested;
}

}  // namespace nvr::bench

int main(int argc, char** argv) {
  return nvr::bench::run(argc, argv);
}
