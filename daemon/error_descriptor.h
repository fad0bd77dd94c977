// The terminal of a stream that fails.
#pragma once

#include <cstdint>

#include "nvr/error.h"
#include "shm/protocol.h"

namespace nvr::daemon {

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
