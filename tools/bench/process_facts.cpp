#include "tools/bench/process_facts.h"

#include <fmt/format.h>

#include <sstream>
#include <string>

#include "tools/lab/proc.h"

namespace nvr::bench {

Result<MemoryUse> memory_of(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/smaps", pid);
  std::istringstream smaps(lab::read_file(path));
  if (smaps.view().empty()) return fail(Code::kUnavailable, "cannot read " + path);
  MemoryUse use = {.table_kib = static_cast<double>(lab::status_number(pid, "VmPTE"))};
  bool is_window = false;
  for (std::string line; std::getline(smaps, line);) {
    const auto value = [&] { return std::stod(line.substr(line.find(':') + 1)); };  // "Rss:   12 kB"
    if (!line.empty() && (line[0] < 'A' || line[0] > 'Z'))  // a mapping begins: its addresses
      is_window = line.find("/memfd:") != std::string::npos;
    else if (is_window && line.starts_with("Rss:"))
      use.window_kib += value();
    else if (!is_window && line.starts_with("Private_Dirty:"))
      use.own_kib += value();
  }
  return use;
}

Result<std::uint64_t> switches_of(pid_t pid) {
  const auto threads = lab::thread_ids_of(pid);
  if (threads.empty()) return fail(Code::kUnavailable, fmt::format("cannot read /proc/{}/task", pid));
  std::uint64_t sum = 0;
  for (const pid_t thread : threads)
    sum += lab::status_number(thread, "voluntary_ctxt_switches") +
           lab::status_number(thread, "nonvoluntary_ctxt_switches");
  return sum;
}

}  // namespace nvr::bench
