#include "daemon/directory_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <thread>
#include <utility>

#include "daemon/limits.h"
#include "daemon/sandbox.h"

namespace nvr::daemon {

Result<std::unique_ptr<DirectoryWatch>> DirectoryWatch::start(std::string path, DirectoryIdentity served,
                                                              int wakeup, bool confine) {
  auto state = std::make_shared<State>();
  state->path = std::move(path);
  state->served = served;
  state->wakeup = wakeup;
  // A change of the mounts is POLLPRI on this file.
  state->mounts.reset(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!state->mounts) return fail_errno(errno, "cannot open /proc/self/mountinfo");
  auto thread = start_thread([state] { run(*state); }, "the thread that watches DIR",
                             [confine] {
                               pthread_setname_np(pthread_self(), "watch");
                               if (confine) static_cast<void>(confine_disk_thread(-1));
                             });
  if (!thread) return tl::unexpected(thread.error());
  thread->detach();
  return std::unique_ptr<DirectoryWatch>(new DirectoryWatch(std::move(state)));
}

void DirectoryWatch::run(State& state) {
  for (;;) {
    // A path that leads nowhere is a disk that is away, and may come back.
    const auto now = DirectoryIdentity::of(AT_FDCWD, state.path.c_str());
    if (now && now->is_elsewhere(state.served)) break;
    pollfd entry = {.fd = state.mounts.get(), .events = POLLPRI, .revents = 0};
    poll(&entry, 1, -1);
  }
  state.has_changed.store(true, std::memory_order_release);  // pairs with has_changed()
  eventfd_write(state.wakeup, 1);
}

}  // namespace nvr::daemon
