// A child process that confines itself as a thread of the daemon does, by the daemon's own code, and then
// tries what it likes. The child's side.
#pragma once

#include <errno.h>
#include <fcntl.h>

#include <cstring>
#include <string>

#include "daemon/sandbox.h"
#include "shm/unique_fd.h"
#include "tests/support/client_process.h"
#include "tests/support/daemon_process.h"

namespace nvr::test {

enum class Role { kDiskThread, kControlThread };

// Opened before the sandbox is entered, as the daemon does.
struct Inside {
  shm::UniqueFd directory;

  explicit Inside(const Site& site)
      : directory(open(site.directory().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    Reporter::require(static_cast<bool>(directory), "no directory");
  }
  void enter(const Site& site, Role role, bool notifies = false) const {
    prctl_no_new_privileges();
    const daemon::Confinement done = role == Role::kDiskThread
                                         ? daemon::confine_disk_thread(directory.get())
                                         : daemon::confine_control_thread(site.socket());
    Reporter::require(done.landlock_abi > 0, "no Landlock");
    Reporter::require(done.drops_all, "capabilities are kept");
    const int error =
        daemon::filter_system_calls({.io_uring = engine_under_test() == "io_uring", .notifies = notifies});
    Reporter::require(error == 0, std::string("no filter: ") + strerror(error));
  }

 private:
  static void prctl_no_new_privileges();
};

// A call that must fail, and how.
inline void refused(long result, int error, const std::string& what) {
  const int found = errno;
  Reporter::require(result < 0, what + " is possible");
  Reporter::require(found == error, what + " fails with " + strerror(found));
}
inline void allowed(long result, const std::string& what) {
  Reporter::require(result >= 0, what + " fails with " + strerror(errno));
}

// Why nothing of this can be tested here: empty, or the reason.
[[nodiscard]] std::string sandbox_missing();

}  // namespace nvr::test
