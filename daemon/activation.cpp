#include "daemon/activation.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

namespace nvr::daemon {

Result<void> take_passed_listener(Options& options) {
  const int count = sd_listen_fds(1);
  if (count < 0) return fail_errno(-count, "cannot take the socket that systemd passes");
  if (count == 0) {
    if (!options.socket_path.empty()) return {};
    return fail(Code::kFailedPrecondition, "systemd passes no socket to this process: --socket is required");
  }
  if (count > 1)
    return fail(Code::kFailedPrecondition,
                "systemd passes " + std::to_string(count) + " sockets: the .socket unit must have one");
  const int socket = SD_LISTEN_FDS_START;
  if (sd_is_socket_unix(socket, SOCK_SEQPACKET, 1, nullptr, 0) <= 0)
    return fail(
        Code::kFailedPrecondition,
        "the socket that systemd passes is no listening Unix socket of packets: the .socket unit must "
        "say ListenSequentialPacket=");
  const int flags = fcntl(socket, F_GETFL);
  if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK) != 0)
    return fail_errno(errno, "cannot make the socket that systemd passes non-blocking");
  sockaddr_un address = {};
  socklen_t length = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) == 0)
    options.socket_path.assign(address.sun_path, strnlen(address.sun_path, sizeof(address.sun_path)));
  options.passed_listener = socket;
  return {};
}

}  // namespace nvr::daemon
