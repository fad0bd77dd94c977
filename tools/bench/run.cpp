#include "tools/bench/run.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <set>
#include <thread>

#include "tools/bench/cpu_time.h"
#include "tools/bench/scratch.h"

namespace nvr::bench {
namespace {

constexpr double kQuietCpus = 0.1;  // what others may use without being noticed

// A row while it is measured.
struct Collected {
  std::string part;
  std::string system;
  std::size_t streams = 0;
  Samples samples = {};
};

Samples& samples_of(const Turn& turn, std::vector<Collected>& all) {
  const auto known = std::ranges::find_if(all, [&](const Collected& one) {
    return one.part == turn.part && one.system == turn.system && one.streams == turn.streams;
  });
  if (known != all.end()) return known->samples;
  return all.emplace_back(Collected{.part = turn.part, .system = turn.system, .streams = turn.streams})
      .samples;
}

std::string describe(std::string_view scenario, const Turn& turn) {
  return fmt::format("{}{}{}: {} of {}", scenario, turn.part.empty() ? "" : ", ", turn.part,
                     describe_streams(turn.streams), turn.system);
}

Result<void> take_turn(const Turn& turn, bool is_warm_up, std::vector<Collected>& rows) {
  if (!is_warm_up) return turn.measure(samples_of(turn, rows));
  if (turn.warm_up) return turn.warm_up();
  Samples unused;
  return turn.measure(unused);
}

Result<void> run_block(std::string_view scenario, const Block& block, const SystemSetup& setup,
                       Progress& progress, std::vector<Collected>& rows) {
  progress.say(fmt::format("{}: sets up the next measurements", scenario));
  const auto turns = block.set_up(setup);
  if (!turns) return tl::unexpected(turns.error());
  for (std::size_t round = 0; round < block.warm_up_rounds + block.rounds; ++round)
    for (const Turn& turn : *turns) {
      if (interrupted()) return fail(Code::kCancelled, "interrupted");
      const bool is_warm_up = round < block.warm_up_rounds;
      progress.say(fmt::format("{}, {} {} of {}", describe(scenario, turn), is_warm_up ? "warm-up" : "round",
                               is_warm_up ? round + 1 : round + 1 - block.warm_up_rounds,
                               is_warm_up ? block.warm_up_rounds : block.rounds));
      if (auto done = take_turn(turn, is_warm_up, rows); !done) return done;
      progress.advance(block.round_s / static_cast<double>(turns->size()));
    }
  return {};
}

// CPU time that the machine has spent on anything but this process and those of its children that have ended.
double foreign_cpu_s() {
  return (static_cast<double>(machine_cpu_ns()) - static_cast<double>(own_cpu_ns()) -
          static_cast<double>(ended_children_cpu_ns())) /
         1e9;
}

}  // namespace

double expected_s(const Plan& plan) {
  double sum = 0;
  for (const Block& block : plan.blocks)
    sum += static_cast<double>(block.warm_up_rounds + block.rounds) * block.round_s;
  return sum;
}

Result<Findings> run_scenario(std::string_view name, const Plan& plan, const BenchOptions& options,
                              Progress& progress) {
  progress.clear();
  fmt::print("{}\n\n", plan.heading);
  std::fflush(stdout);
  const auto scratch = ScratchDirectory::create(options.directory);
  if (!scratch) return tl::unexpected(scratch.error());
  const std::filesystem::path recordings = scratch->path() / "recordings";
  std::error_code error;
  if (!std::filesystem::create_directory(recordings, error))
    return fail_errno(error.value(), "cannot make " + recordings.string());
  if (plan.files.count > 0) progress.say(fmt::format("{}: writes {}", name, describe(plan.files)));
  const auto files = FileSet::create(recordings, plan.files);
  if (!files) return tl::unexpected(files.error());
  const SystemSetup setup = {.files = *files,
                             .scratch = scratch->path(),
                             .daemon = options.daemon,
                             .device_kind = options.device_kind};
  const auto started = std::chrono::steady_clock::now();
  const double foreign_before = foreign_cpu_s();
  std::vector<Collected> collected;
  for (const Block& block : plan.blocks)
    if (auto done = run_block(name, block, setup, progress, collected); !done)
      return tl::unexpected(done.error());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  progress.clear();

  Findings findings = {.rows = {}, .references = plan.references, .targets = {}};
  if (plan.watches_others)
    findings.foreign_cpus = std::max(0.0, (foreign_cpu_s() - foreign_before) / took.count());
  for (const Collected& row : collected)
    if (!row.samples.empty())
      findings.rows.push_back(to_row(name, row.part, row.system, row.streams, row.samples));
  for (const char* const ours : {"nvr_mmap", "nvr_io_uring"}) {
    Referee referee(findings.rows, ours, findings.targets);
    if (plan.require) plan.require(referee);
  }
  return findings;
}

void print_findings(const Findings& findings) {
  fmt::print("{}", table_of(findings.rows, findings.references));
  if (findings.foreign_cpus)
    fmt::print("\nother processes kept {:.2f} CPUs busy meanwhile{}\n", *findings.foreign_cpus,
               *findings.foreign_cpus > kQuietCpus ? ": too many for figures to rely on" : "");
  print_targets(findings.targets);
  std::fflush(stdout);
}

std::string describe(const FileShape& files) {
  return fmt::format("{} recordings of {} MiB", files.count, files.bytes >> 20);
}

std::string describe_streams(std::size_t streams) {
  return fmt::format("{} stream{}", streams, streams == 1 ? "" : "s");
}

std::string describe_run(const BenchOptions& options) {
  utsname machine = {};
  uname(&machine);
  return fmt::format("{} round{}, {} CPUs, Linux {}", options.rounds, options.rounds == 1 ? "" : "s",
                     std::thread::hardware_concurrency(), machine.release);
}

Result<Systems> make_systems(std::span<const MakeSystem> makers, const SystemSetup& setup) {
  Systems systems;
  const auto add = [&](MakeSystem make) -> Result<void> {
    auto system = make(setup);
    if (!system) return tl::unexpected(system.error());
    systems.push_back(std::move(*system));
    return {};
  };
  for (const MakeSystem make : makers) {
    const auto added = make == make_nvr_io_uring_system ? unless_refused(add(make)) : add(make);
    if (!added) return tl::unexpected(added.error());
  }
  return systems;
}

void add_turns(std::vector<Turn>& turns, const Systems& systems, std::string_view part, std::size_t streams,
               const std::function<Result<void>(System&, Samples&)>& measure) {
  for (const auto& system : systems)
    turns.push_back({.part = std::string(part),
                     .system = std::string(system->name()),
                     .streams = streams,
                     .measure = [system, measure](Samples& samples) { return measure(*system, samples); }});
}

Result<void> unless_refused(Result<void> with_io_uring) {
  static std::set<std::string> said;
  if (!with_io_uring && said.insert(with_io_uring.error().message).second)
    fmt::print("nvr_io_uring is left out: {}\n", with_io_uring.error().message);
  return {};
}

Result<void> for_each_engine(const std::function<Result<void>(const std::string&)>& make) {
  if (auto made = make("mmap"); !made) return made;
  return unless_refused(make("io_uring"));
}

}  // namespace nvr::bench
