// What the daemon gives up once it has opened what it needs: nothing of a client's is looked at before that.
// Each layer stands for itself; where the kernel lacks one, the others are in force and the log says so.
//
// Landlock and capabilities belong to a thread, so each thread confines itself: the disk thread can read
// beneath DIR, the control thread can remove the socket. The filter of system calls is of the whole process
// and comes last. What a ring opens is seen by no filter: see ring_restrictions.h.
#pragma once

#include <string>

namespace nvr::daemon {

// In a build with sanitizers there is no Landlock and no filter: their runtimes write reports and start a
// symbolizer at any time.
[[nodiscard]] bool sandbox_is_whole();

// What has come of a thread's confinement.
struct Confinement {
  int landlock_abi = 0;        // 0: no Landlock
  bool drops_all = false;      // capabilities, but for `kept`
  const char* kept = nullptr;  // the name of the one that is needed, if there is one
};

// Disk thread, when the engine works: of all files it can open those beneath `directory`, to read them. A
// daemon that could read the files of other users still can (CAP_DAC_READ_SEARCH). -1: it opens none.
[[nodiscard]] Confinement confine_disk_thread(int directory);

// Control thread, when it listens: of all files it can remove those beside `socket_path` (empty: none).
[[nodiscard]] Confinement confine_control_thread(const std::string& socket_path);

// A thread that has all that it needs open: the log's, the one that serves the metrics.
[[nodiscard]] Confinement confine_helper_thread();

// What both have come to: the log tells of the weaker.
[[nodiscard]] Confinement weaker_of(const Confinement& one, const Confinement& other);

struct FilterOptions {
  bool io_uring = false;  // the ring is there, and is used
  bool notifies = false;  // systemd is told how it goes
};

// All threads, those of now and of later. What never ends well (exec, ptrace, mount, ...) kills the process,
// and any other call that is not needed fails with EPERM; the kernel logs both. 0 or an errno.
[[nodiscard]] int filter_system_calls(const FilterOptions& options);

// "seccomp, landlock abi 7, io_uring restrictions, no capabilities". `engine`: what confines its own ways to
// the kernel, if it has any. `filter_error`: what filter_system_calls() returned.
[[nodiscard]] std::string describe_sandbox(const Confinement& control, const Confinement& disk,
                                           const std::string& engine, int filter_error);

}  // namespace nvr::daemon
