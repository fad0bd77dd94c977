// What /proc tells about a process. Root is needed for processes that are not dumpable, as the daemon is.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nvr::lab {

// A whole file, for /proc and other small ones. Empty when it cannot be read.
[[nodiscard]] std::string read_file(const std::string& path);

// Open descriptors and what they are ("/path", "socket:[1]", "anon_inode:[eventfd]"). The one that this
// function itself needs is not among them.
[[nodiscard]] std::map<int, std::string> descriptors_of(pid_t pid);
// Those that lead to something beneath `directory`.
[[nodiscard]] std::size_t descriptors_beneath(pid_t pid, std::string_view directory);

struct MapEntry {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string permissions;  // "rw-s"
  std::string name;         // path, "/memfd:name (deleted)", "[heap]" or empty
};
[[nodiscard]] std::vector<MapEntry> mappings_of(pid_t pid);
[[nodiscard]] std::size_t mappings_beneath(pid_t pid, std::string_view directory);

// Its threads, the main thread first, with the kernel's own (io_uring's workers).
[[nodiscard]] std::vector<pid_t> thread_ids_of(pid_t pid);
// 'R', 'S', 'D', ... as /proc has it; '?' when the thread is gone.
[[nodiscard]] char state_of_thread(pid_t pid, pid_t thread);
// The names of its threads, the main thread first. Without io_uring's workers, which come and go.
[[nodiscard]] std::vector<std::string> threads_of(pid_t pid);

// A line of /proc/PID/status, such as "RssShmem", as a number. 0 when there is none.
[[nodiscard]] std::uint64_t status_number(pid_t pid, std::string_view key);

// What a process holds. Two are compared field by field.
struct Footprint {
  std::size_t descriptors = 0;
  std::size_t shared_mappings = 0;  // memfds and files that can be shared; not libraries, heap or stacks
  std::size_t mappings = 0;         // all
  std::size_t threads = 0;
  std::uint64_t shared_kib = 0;   // resident
  std::uint64_t private_kib = 0;  // resident

  friend bool operator==(const Footprint&, const Footprint&) = default;
};
[[nodiscard]] Footprint footprint_of(pid_t pid);
// Does a thread of the process run, or wait for a processor?
[[nodiscard]] bool has_runnable_thread(pid_t pid);

// A process's footprint at a quiet moment, to be compared with a later one. Descriptors, shared mappings and
// memory, and threads must be as before; private memory and all mappings may differ by what an allocator
// keeps.
class Baseline {
 public:
  // Waits until every thread sleeps and nothing changes, such as the end of the last status query.
  explicit Baseline(pid_t pid);

  // Waits until the process is back there. What still differs when it never is; empty when all is well.
  [[nodiscard]] std::string difference_after_waiting() const;
  [[nodiscard]] std::string difference() const;
  [[nodiscard]] const Footprint& at_start() const { return at_start_; }

 private:
  pid_t pid_;
  Footprint at_start_;
};

}  // namespace nvr::lab
