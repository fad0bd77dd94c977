// Notices that a mount has changed which directory DIR leads to: its disk came back as another device, or a
// disk was mounted over an empty mount point. The daemon goes on to hold the old one, and would serve it for
// ever. A directory that is renamed is none of this: it is the same disk's.
//
// The look is a stat() of the path, which can wait for a disk; so the watch has a thread of its own, and
// nobody waits for it. It sleeps until the kernel tells of a mount.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "daemon/sample_dir.h"
#include "nvr/error.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

class DirectoryWatch {
 public:
  // `served` is the directory that is served. `wakeup`: an eventfd, written once when the path leads to
  // another one. `confine`: the thread gives up all privileges but to look. The Error says why
  // nothing can be watched here (no /proc).
  [[nodiscard]] static Result<std::unique_ptr<DirectoryWatch>> start(std::string path,
                                                                     DirectoryIdentity served, int wakeup,
                                                                     bool confine);

  [[nodiscard]] bool has_changed() const { return state_->has_changed.load(std::memory_order_acquire); }

 private:
  // The thread's own: it is never joined, and may outlive the watch.
  struct State {
    std::string path;
    DirectoryIdentity served;
    int wakeup = -1;
    shm::UniqueFd mounts;
    std::atomic<bool> has_changed = false;
  };
  explicit DirectoryWatch(std::shared_ptr<State> state) : state_(std::move(state)) {}
  static void run(State& state);

  std::shared_ptr<State> state_;
};

}  // namespace nvr::daemon
