// nvr-bench: our engines and the alternatives on the same files in one run.
#include <fmt/format.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cstdio>

#include "tools/bench/scenario.h"
#include "tools/common/command_line.h"

namespace nvr::bench {
namespace {

struct Scenario {
  std::string_view name;
  Result<Findings> (*run)(const BenchOptions&);
};

constexpr std::array kScenarios = {Scenario{"hot", run_hot}, Scenario{"cold", run_cold}};

constexpr const char* kHelp = R"(Scenarios:
  hot   recordings in the page cache: GB/s and CPU seconds per GB with 1, 4 and 16 streams, and the time
        from open to the bytes of the first chunk (1 stream, 64 KiB, everybody asleep before)
  cold  recordings on the disk only (dropped from the page cache before each measurement), 1 and 16 streams
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

int show(const Findings& findings, const std::string& json_path) {
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

int run(int argc, char** argv) {
  BenchOptions options = {.directory = "/var/tmp", .daemon = default_daemon(), .files = {}};
  std::string scenario = "hot";
  std::string json_path;
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
  if (const auto code = tools::parse_command_line(app, argc, argv)) return *code;
  options.files.bytes = file_mib << 20;
  options.run_time = std::chrono::milliseconds(run_ms);

  signal(SIGINT, request_stop);
  signal(SIGTERM, request_stop);
  for (const Scenario& known : kScenarios) {
    if (known.name != scenario) continue;
    const auto findings = known.run(options);
    if (findings) return show(*findings, json_path);
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
