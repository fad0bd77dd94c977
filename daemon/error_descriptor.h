// The terminal of a stream that fails.
#pragma once

#include <errno.h>

#include <cstdint>

#include "nvr/error.h"
#include "shm/protocol.h"

namespace nvr::daemon {

// Does this errno of an open, a stat or a read say something about the disk or its file system? Each does
// that says nothing about the request or about the daemon itself: file systems pass on what drives,
// controllers, servers and FUSE programs answer.
[[nodiscard]] inline bool is_disk_error(int error) {
  switch (error) {
    case 0:
    // The request: no such file, no permission, no recording, no direct reads.
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case EACCES:
    case EPERM:
    case EISDIR:
    case ELOOP:
    case ENXIO:
    case EXDEV:
    case EINVAL:
    case EOPNOTSUPP:
    // The daemon: its limits, its memory, its kernel and its mistakes.
    case EAGAIN:
    case EINTR:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case ENOSYS:
    case ECANCELED:
    case EBADF:
    case EFAULT:
      return false;
    default:
      return true;
  }
}

// An errno of the disk or its file system is DataLoss, whatever it means elsewhere: on NotFound a client
// would give up a file that is there, on DeadlineExceeded or Unavailable it would try again.
[[nodiscard]] inline Code code_of_file_error(int error) {
  return is_disk_error(error) ? Code::kDataLoss : code_from_errno(error);
}

inline shm::Descriptor error_descriptor(Code code, shm::Detail detail, int sys_errno, std::uint64_t offset,
                                        std::uint64_t file_size) {
  return {.kind = shm::DescriptorKind::kError,
          .code = static_cast<std::uint16_t>(code),
          .detail = detail,
          .sys_errno = sys_errno,
          .offset = offset,
          .file_size = file_size};
}

}  // namespace nvr::daemon
