// The terminal of a stream that fails.
#pragma once

#include <errno.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "nvr/error.h"
#include "shm/protocol.h"

namespace nvr::daemon {

// Those that speak of the disk or its file system, rather than of the request.
[[nodiscard]] inline bool is_disk_error(int error) {
  constexpr std::array kOfTheDisk = {EIO,    EREMOTEIO, ENODATA,   EILSEQ,    EBADMSG,   EUCLEAN,
                                     ENODEV, ENOLINK,   ETIMEDOUT, ENOMEDIUM, ESHUTDOWN, ESTALE};
  return std::ranges::find(kOfTheDisk, error) != kOfTheDisk.end();
}

// A read that the disk or file system fails is DataLoss, whatever its errno means elsewhere: on
// DeadlineExceeded or Unavailable a client would try again.
[[nodiscard]] inline Code code_of_read_error(int error) {
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
