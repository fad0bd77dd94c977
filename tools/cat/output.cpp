#include "tools/cat/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

namespace nvr::tools {
namespace {

// The code is ours, not the errno's: "disk full" on our output says nothing about the recording.
tl::unexpected<Error> output_error(int error) {
  auto failed = fail_errno(error, "cannot write to standard output");
  failed.value().code = Code::kAborted;
  return failed;
}

}  // namespace

void StandardOutput::prepare() {
  signal(SIGPIPE, SIG_IGN);
  // open() takes the lowest free number; read-only, so that writing to a closed standard output still fails.
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDONLY) < 0) return;
}

Result<void> StandardOutput::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN) {  // somebody made it non-blocking: a shared terminal or pipe
      pollfd writable = {.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
      poll(&writable, 1, -1);
    } else if (errno != EINTR) {
      return output_error(errno);
    }
  }
  return {};
}

Result<void> StandardOutput::close() {
  if (::close(STDOUT_FILENO) != 0 && errno != EINTR) return output_error(errno);
  return {};
}

}  // namespace nvr::tools
