#include "tools/bench/process_facts.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tools/bench/text_files.h"

namespace nvr::bench {
namespace {

// "Rss:   12 kB" and "voluntary_ctxt_switches:  3": the number, if the line has that name.
bool reads(const std::string& line, std::string_view name, double& value) {
  if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ':') return false;
  value = std::stod(line.substr(name.size() + 1));
  return true;
}

}  // namespace

Result<MemoryUse> memory_of(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/smaps", pid);
  std::ifstream smaps(path);
  if (!smaps) return fail(Code::kUnavailable, "cannot read " + path);
  MemoryUse use;
  bool is_window = false;
  for (std::string line; std::getline(smaps, line);) {
    double kib = 0;
    if (!line.empty() && (line[0] < 'A' || line[0] > 'Z'))  // a mapping begins: its addresses
      is_window = line.find("/memfd:") != std::string::npos;
    else if (is_window && reads(line, "Rss", kib))
      use.window_kib += kib;
    else if (!is_window && reads(line, "Private_Dirty", kib))
      use.own_kib += kib;
  }
  std::istringstream status(text_of(fmt::format("/proc/{}/status", pid)));
  for (std::string line; std::getline(status, line);) static_cast<void>(reads(line, "VmPTE", use.table_kib));
  return use;
}

Result<std::uint64_t> switches_of(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/task", pid);
  std::error_code error;
  double sum = 0;
  for (const auto& task : std::filesystem::directory_iterator(path, error)) {
    std::istringstream status(text_of(task.path() / "status"));
    for (std::string line; std::getline(status, line);) {
      double count = 0;
      if (reads(line, "voluntary_ctxt_switches", count) || reads(line, "nonvoluntary_ctxt_switches", count))
        sum += count;
    }
  }
  if (error) return fail_errno(error.value(), "cannot read " + path);
  return static_cast<std::uint64_t>(sum);
}

}  // namespace nvr::bench
