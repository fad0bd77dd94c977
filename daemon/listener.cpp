#include "daemon/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <ctime>

#include "shm/step.h"

namespace nvr::daemon {
namespace {

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // Linux 6.5
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83  // Linux 6.16
#endif

constexpr int kBacklog = 128;

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Excludes another daemon that is taking over a path in the same directory at this moment. Held for the
// takeover only.
Result<shm::UniqueFd> lock_directory(const std::string& directory) {
  shm::UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open the socket's directory " + directory);
  for (int attempt = 0; attempt < 100; ++attempt) {
    if (flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
    if (errno != EWOULDBLOCK && errno != EINTR)
      return fail_errno(errno, "cannot lock the directory " + directory);
    const timespec pause = {.tv_sec = 0, .tv_nsec = 50'000'000};
    nanosleep(&pause, nullptr);
  }
  return fail(Code::kUnavailable,
              "the directory " + directory + " of the socket stays locked by another process");
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return fail(Code::kInvalidArgument, "socket path '" + path + "' is empty or longer than " +
                                            std::to_string(sizeof(address.sun_path) - 1) + " bytes");
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Removes a socket that a dead daemon left at `path`; refuses anything else that lies there.
Result<void> clear_path(const std::string& path, const sockaddr_un& address) {
  struct stat st = {};
  if (lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, "cannot stat " + path);
  }
  if (!S_ISSOCK(st.st_mode))
    return fail(Code::kFailedPrecondition,
                path + " exists and is no socket: it is left alone; choose another --socket");
  shm::UniqueFd probe(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return fail_errno(errno, "cannot create a socket");
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno != ECONNREFUSED)
    return fail(Code::kAlreadyExists,
                "another process listens at " + path + ": stop it or choose another --socket");
  if (unlink(path.c_str()) != 0) return fail_errno(errno, "cannot remove the stale socket " + path);
  return {};
}

// A passed descriptor can make its receiver wait when it is closed: refuse them all, where the kernel can.
void refuse_descriptors(int socket) {
  const int off = 0;
  setsockopt(socket, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
}

}  // namespace

Listener Listener::adopt(shm::UniqueFd socket) {
  refuse_descriptors(socket.get());
  return {std::move(socket), std::string(), 0, 0};
}

Result<Listener> Listener::create(const std::string& path, bool others_may_connect) {
  const auto address = address_of(path);
  if (!address) return tl::unexpected(address.error());
  const auto lock = lock_directory(directory_of(path));
  if (!lock) return tl::unexpected(lock.error());
  if (auto cleared = clear_path(path, *address); !cleared) return tl::unexpected(cleared.error());

  shm::UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "cannot create a socket");
  refuse_descriptors(socket.get());
  const mode_t old_mask = umask(0177);
  const int bound = bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address));
  const int bind_errno = errno;
  umask(old_mask);
  if (bound != 0) return fail_errno(bind_errno, "cannot bind " + path);
  NVR_STEP("daemon.bound");
  struct stat st = {};
  if (lstat(path.c_str(), &st) != 0) return fail_errno(errno, "cannot stat " + path);
  Listener listener(std::move(socket), path, st.st_dev, st.st_ino);
  if (others_may_connect && chmod(path.c_str(), 0666) != 0)
    return fail_errno(errno, "cannot open up " + path);
  NVR_STEP("daemon.about_to_listen");
  if (listen(listener.fd(), kBacklog) != 0) return fail_errno(errno, "cannot listen at " + path);
  NVR_STEP("daemon.listening");
  return listener;
}

Result<std::optional<AcceptedPeer>> Listener::accept() const {
  AcceptedPeer peer;
  peer.socket.reset(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!peer.socket) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
      return fail_errno(errno, "cannot accept a connection");
    return std::nullopt;  // nobody there, or gone again
  }
  refuse_descriptors(peer.socket.get());
  ucred credentials = {};
  socklen_t length = sizeof(credentials);
  if (getsockopt(peer.socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return fail_errno(errno, "cannot read a peer's credentials");
  peer.identity = {.pid = credentials.pid, .uid = credentials.uid};
  int pidfd = -1;
  length = sizeof(pidfd);
  if (getsockopt(peer.socket.get(), SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) != 0)
    pidfd = static_cast<int>(
        syscall(SYS_pidfd_open, credentials.pid, 0));  // may be another's by now; only an early hint
  peer.pidfd.reset(pidfd);
  return peer;
}

void Listener::unlink_if_ours() {
  if (!socket_) return;
  // While the socket is open the kernel keeps its inode: no other file can have got the number.
  struct stat st = {};
  if (!path_.empty() && lstat(path_.c_str(), &st) == 0 && st.st_dev == device_ && st.st_ino == inode_)
    unlink(path_.c_str());
  socket_.reset();
}

}  // namespace nvr::daemon
