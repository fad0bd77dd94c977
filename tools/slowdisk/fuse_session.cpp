#include "tools/slowdisk/fuse_session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <vector>

namespace nvr::slowdisk {
namespace {

// More than a loop device (128) and a crowd of readers have under way.
constexpr unsigned kMaxBackground = 1024;

}  // namespace

void set_up_connection(fuse_conn_info& connection) {
  connection.max_read = kMaxRead_bytes;
  connection.max_readahead = kMaxRead_bytes;
  connection.max_background = kMaxBackground;
  connection.congestion_threshold = kMaxBackground;
}

void FuseSession::End::operator()(fuse_session* session) const {
  fuse_session_unmount(session);
  fuse_session_destroy(session);
}

Result<FuseSession> FuseSession::create(const fuse_lowlevel_ops& operations, void* user_data,
                                        const Options& options) {
  std::string mount_options = "default_permissions,subtype=nvr-slowdisk,fsname=" + options.source +
                              ",max_read=" + std::to_string(kMaxRead_bytes);
  if (options.read_only) mount_options += ",ro";
  if (geteuid() == 0) mount_options += ",allow_other";
  std::array<std::string, 3> words = {"nvr-slowdisk", "-o", mount_options};
  std::array<char*, 4> argv = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(3, argv.data());
  fuse_session* const session = fuse_session_new(&arguments, &operations, sizeof(operations), user_data);
  fuse_opt_free_args(&arguments);
  if (session == nullptr) return fail(Code::kInternal, "cannot start a FUSE session");
  if (fuse_session_mount(session, options.mountpoint.c_str()) != 0) {
    fuse_session_destroy(session);
    return fail(
        Code::kUnavailable,
        "cannot mount at " + options.mountpoint +
            ": is it an empty directory, is there a /dev/fuse, and are you root or is fusermount3 there?");
  }
  return FuseSession(std::unique_ptr<fuse_session, End>(session));
}

void FuseSession::run(int stop_fd) {
  const int fd = fuse_session_fd(session_.get());
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);  // a request may be withdrawn after poll() saw it
  fuse_buf buffer = {};
  std::array<pollfd, 2> entries = {pollfd{.fd = fd, .events = POLLIN, .revents = 0},
                                   pollfd{.fd = stop_fd, .events = POLLIN, .revents = 0}};
  while (fuse_session_exited(session_.get()) == 0) {
    if (poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) break;
    if (entries[1].revents != 0) break;
    const int length = fuse_session_receive_buf(session_.get(), &buffer);
    if (length == -EINTR || length == -EAGAIN) continue;
    if (length <= 0) break;
    fuse_session_process_buf(session_.get(), &buffer);
  }
  std::free(buffer.mem);
}

}  // namespace nvr::slowdisk
