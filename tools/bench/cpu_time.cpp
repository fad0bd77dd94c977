#include "tools/bench/cpu_time.h"

#include <errno.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace nvr::bench {
namespace {

std::uint64_t to_ns(const timespec& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace

std::uint64_t own_cpu_ns() {
  timespec time = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return to_ns(time);
}

std::uint64_t ended_children_cpu_ns() {
  rusage usage = {};
  getrusage(RUSAGE_CHILDREN, &usage);
  const auto ns = [](const timeval& time) {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(time.tv_usec) * 1000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

Result<std::uint64_t> cpu_ns_of(pid_t pid) {
  clockid_t clock = 0;
  timespec time = {};
  const int error = clock_getcpuclockid(pid, &clock);
  if (error != 0) return fail_errno(error, "process " + std::to_string(pid) + " has no CPU clock");
  if (clock_gettime(clock, &time) != 0)
    return fail_errno(errno, "cannot read the CPU clock of process " + std::to_string(pid));
  return to_ns(time);
}

std::uint64_t machine_cpu_ns() {
  std::ifstream stat("/proc/stat");
  std::string label;
  std::uint64_t user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0;
  stat >> label >> user >> nice >> system >> idle >> iowait >> irq >> softirq;
  const auto ticks_per_s = static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK));
  return (user + nice + system + irq + softirq) * (1'000'000'000 / ticks_per_s);
}

}  // namespace nvr::bench
