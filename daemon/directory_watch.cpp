#include "daemon/directory_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <latch>
#include <thread>
#include <utility>

#include "daemon/limits.h"
#include "daemon/sandbox.h"

namespace nvr::daemon {

Result<std::unique_ptr<DirectoryWatch>> DirectoryWatch::start(std::string path, DirectoryIdentity identity,
                                                              int wakeup, bool confine) {
  auto state = std::make_shared<State>();
  state->path = std::move(path);
  state->identity = identity;
  state->wakeup = wakeup;
  // A change of the mounts is POLLPRI on this file.
  state->mounts.reset(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!state->mounts) return fail_errno(errno, "cannot open /proc/self/mountinfo");
  state->renames.reset(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!state->renames ||
      inotify_add_watch(state->renames.get(), state->path.c_str(), IN_MOVE_SELF | IN_DELETE_SELF) < 0)
    return fail_errno(errno, "cannot watch it by inotify");
  std::latch confined(1);  // the filter of system calls comes after this, and would not let it
  auto thread = start_thread(
      [state, confine, &confined] {
        pthread_setname_np(pthread_self(), "watch");
        if (confine) static_cast<void>(confine_disk_thread(-1));
        confined.count_down();
        run(*state);
      },
      "the thread that watches DIR");
  if (!thread) return tl::unexpected(thread.error());
  confined.wait();
  thread->detach();
  return std::unique_ptr<DirectoryWatch>(new DirectoryWatch(std::move(state)));
}

void DirectoryWatch::run(State& state) {
  for (;;) {
    struct stat st = {};
    // A path that leads nowhere is a disk that is away, and may come back.
    if (stat(state.path.c_str(), &st) == 0 && DirectoryIdentity{st.st_dev, st.st_ino} != state.identity)
      break;
    std::array<pollfd, 2> entries = {pollfd{.fd = state.mounts.get(), .events = POLLPRI, .revents = 0},
                                     pollfd{.fd = state.renames.get(), .events = POLLIN, .revents = 0}};
    poll(entries.data(), entries.size(), -1);
    std::array<char, 4096> events;
    while (read(state.renames.get(), events.data(), events.size()) > 0) {
    }
  }
  state.has_changed.store(true, std::memory_order_release);  // pairs with has_changed()
  eventfd_write(state.wakeup, 1);
}

}  // namespace nvr::daemon
