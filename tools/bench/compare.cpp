#include "tools/bench/compare.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <thread>

namespace nvr::bench {

Result<Systems> make_systems(std::span<const MakeSystem> makers, const SystemSetup& setup) {
  Systems systems;
  for (const MakeSystem make : makers) {
    auto system = make(setup);
    if (system) {
      systems.push_back(std::move(*system));
      continue;
    }
    if (make != make_nvr_io_uring_system) return tl::unexpected(system.error());
    fmt::print("nvr_io_uring is left out: {}\n", system.error().message);
  }
  return systems;
}

void Samples::add(const Flow& flow) {
  gb_per_s.push_back(flow.gb_per_s);
  cpu_s_per_gb.push_back(flow.cpu_s_per_gb);
  chunks_per_s.push_back(flow.chunks_per_s);
}

Row to_row(std::string scenario, std::string_view system, std::size_t streams, const Samples& samples) {
  Row row = {.scenario = std::move(scenario),
             .system = std::string(system),
             .streams = streams,
             .gb_per_s = spread_of(samples.gb_per_s),
             .cpu_s_per_gb = spread_of(samples.cpu_s_per_gb),
             .ops_per_s = spread_of(samples.chunks_per_s)};
  if (!samples.open_us.empty())
    row.latency = Latency{.p50_us = percentile_of(samples.open_us, 0.5),
                          .p99_us = percentile_of(samples.open_us, 0.99)};
  return row;
}

std::string name_of_target(std::size_t streams, std::string_view system, std::string_view what) {
  return fmt::format("{:>2} stream{} {:<12} {}", streams, streams == 1 ? ": " : "s:", system, what);
}

double ratio_of(double value, double reference) {
  return reference > 0 ? value / reference : 0;
}

std::string describe_machine() {
  utsname machine = {};
  uname(&machine);
  return fmt::format("{} CPUs, Linux {}", std::thread::hardware_concurrency(), machine.release);
}

}  // namespace nvr::bench
