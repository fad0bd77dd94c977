#include "tests/support/system_calls.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/support/environment.h"
#include "tests/support/temp_dir.h"

namespace nvr::test {
namespace {

// A view of tracefs of our own: many machines have it mounted nowhere.
class TraceFs {
 public:
  TraceFs() : is_mounted_(mount("nodev", (place_ / "").c_str(), "tracefs", MS_RDONLY, nullptr) == 0) {}
  ~TraceFs() {
    if (is_mounted_) umount2((place_ / "").c_str(), MNT_DETACH);
  }
  TraceFs(const TraceFs&) = delete;
  TraceFs& operator=(const TraceFs&) = delete;

  [[nodiscard]] std::optional<std::uint64_t> id_of(const std::string& event) const {
    std::ifstream file(place_ / ("events/" + event + "/id"));
    std::uint64_t id = 0;
    return file >> id ? std::optional(id) : std::nullopt;
  }

 private:
  TempDir place_;
  bool is_mounted_;
};

std::optional<std::uint64_t> system_call_event() {
  static const std::optional<std::uint64_t> id = TraceFs().id_of("raw_syscalls/sys_enter");
  return id;
}

}  // namespace

std::optional<std::string> SystemCalls::missing() {
  if (system_call_event()) return std::nullopt;
  return "the kernel's tracepoint raw_syscalls:sys_enter, and root to count it";
}

SystemCalls::SystemCalls(pid_t process, const std::vector<long>& but_for) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task"))
    add_thread(std::stoi(entry.path().filename()), but_for);
}

SystemCalls SystemCalls::of_thread(pid_t thread, const std::vector<long>& but_for) {
  SystemCalls calls;
  calls.add_thread(thread, but_for);
  return calls;
}

void SystemCalls::add_thread(pid_t thread, const std::vector<long>& but_for) {
  perf_event_attr attributes = {};
  attributes.type = PERF_TYPE_TRACEPOINT;
  attributes.size = sizeof(attributes);
  attributes.config = system_call_event().value_or(0);
  counters_.emplace_back(
      static_cast<int>(syscall(SYS_perf_event_open, &attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  std::string filter;
  for (const long number : but_for)
    filter += (filter.empty() ? "id != " : " && id != ") + std::to_string(number);
  if (!counters_.back() ||
      (!filter.empty() && ioctl(counters_.back().get(), PERF_EVENT_IOC_SET_FILTER, filter.c_str()) != 0))
    throw TestFailure(std::string("cannot count system calls: ") + strerror(errno));
}

std::uint64_t SystemCalls::count() const {
  std::uint64_t sum = 0;
  for (const shm::UniqueFd& counter : counters_) {
    std::uint64_t count = 0;
    if (read(counter.get(), &count, sizeof(count)) != sizeof(count))
      throw TestFailure("cannot read a counter of system calls");
    sum += count;
  }
  return sum;
}

}  // namespace nvr::test
