// Standard output, to the last byte: short writes are continued, and a reader that has gone is an error
// rather than a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nvr/error.h"

namespace nvr::tools {

class StandardOutput {
 public:
  // Gives descriptors 0, 1 and 2 a place if the caller had closed them, so that no socket or segment can come
  // to lie where bytes are written; and makes a broken pipe an error. Call before anything else opens a
  // descriptor.
  static void prepare();

  // Aborted, with the errno: the bytes did not all go out.
  [[nodiscard]] Result<void> write(std::span<const std::byte> bytes);
  // Closes it, which on some file systems is when a write's error is told.
  [[nodiscard]] Result<void> close();
};

}  // namespace nvr::tools
