#include "tools/bench/fio.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace nvr::bench {
namespace {

// A job for each file, 64 KiB reads, 16 in flight for each. Buffered, as our reads are.
std::string command_line(const FileSet& files, std::size_t streams) {
  std::string line =
      "exec fio --output-format=json --thread --group_reporting --ioengine=io_uring --rw=read --bs=64k "
      "--iodepth=16 --direct=0 --invalidate=0";
  for (std::size_t stream = 0; stream < streams; ++stream)
    line += fmt::format(" --name=s{} --filename='{}'", stream, files.path(stream % files.count()));
  return line + " 2>/dev/null";
}

std::string output_of(const std::string& command) {
  struct Close {
    void operator()(FILE* pipe) const { pclose(pipe); }
  };
  const std::unique_ptr<FILE, Close> pipe(popen(command.c_str(), "re"));
  std::string output;
  char block[4096];
  while (pipe != nullptr && std::fgets(block, sizeof(block), pipe.get()) != nullptr) output += block;
  return output;
}

}  // namespace

std::optional<Flow> run_fio(const FileSet& files, std::size_t streams) {
  const auto report = nlohmann::json::parse(output_of(command_line(files, streams)), nullptr, false);
  if (!report.is_object() || !report.contains("jobs") || report["jobs"].empty()) return std::nullopt;
  const auto& job = report["jobs"][0];
  const double bytes = job["read"].value("io_bytes", 0.0);
  const double seconds = job["read"].value("runtime", 0.0) / 1e3;  // of the slowest, in milliseconds
  if (job.value("error", 0) != 0 || bytes <= 0 || seconds <= 0) return std::nullopt;
  const double cpu_percent =
      job.value("usr_cpu", 0.0) + job.value("sys_cpu", 0.0);  // of one thread, on average
  return Flow{.gb_per_s = bytes / 1e9 / seconds,
              .cpu_s_per_gb = cpu_percent / 100 * seconds * static_cast<double>(streams) / (bytes / 1e9),
              .chunks_per_s = bytes / static_cast<double>(kChunkBytes) / seconds};
}

}  // namespace nvr::bench
