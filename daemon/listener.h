// The socket that clients connect to: taken over safely, refusing passed descriptors, removed at the end if
// it is still ours. Control thread only.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "daemon/connection.h"
#include "nvr/error.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

struct AcceptedPeer {
  shm::UniqueFd socket;  // non-blocking
  shm::UniqueFd pidfd;   // readable once the process is dead; none where the kernel refuses one
  PeerIdentity identity;
};

class Listener {
 public:
  // Binds and listens at `path`. A path that is taken is taken over only if it is a socket on which nobody
  // listens; AlreadyExists for a live daemon, FailedPrecondition for what is no socket. Others may connect
  // only if `others_may_connect`; who they are is checked at accept all the same.
  [[nodiscard]] static Result<Listener> create(const std::string& path, bool others_may_connect);
  // One that listens already, made by systemd (passed_listener()): its path is not ours to remove.
  [[nodiscard]] static Listener adopt(shm::UniqueFd socket);
  Listener(Listener&& other) noexcept = default;
  Listener& operator=(Listener&& other) = delete;
  ~Listener() { unlink_if_ours(); }

  [[nodiscard]] int fd() const { return socket_.get(); }
  // Which is removed at the end; empty: it is not ours.
  [[nodiscard]] const std::string& path() const { return path_; }
  // Nothing when nobody is waiting; an error when the process is out of descriptors or memory.
  [[nodiscard]] Result<std::optional<AcceptedPeer>> accept() const;
  void unlink_if_ours();

 private:
  Listener(shm::UniqueFd socket, std::string path, dev_t device, ino_t inode)
      : socket_(std::move(socket)), path_(std::move(path)), device_(device), inode_(inode) {}

  shm::UniqueFd socket_;
  std::string path_;  // empty: not ours
  dev_t device_;
  ino_t inode_;
};

}  // namespace nvr::daemon
