// Catches SIGBUS in a copy from a file mapping, in the thread that makes the copy, for that mapping only. A
// SIGBUS from anywhere else still kills the process.
#pragma once

#include <cstddef>
#include <span>

namespace nvr::daemon {

// Installs the process-wide handler. Call once, before any guarded_copy().
void install_sigbus_handler();

// Copies `source` to `target` and returns the number of bytes copied: all of them, or, when the kernel could
// not provide a page of them (end of file, I/O error), those before that page. `source` lies within
// `guarded`.
[[nodiscard]] std::size_t guarded_copy(std::byte* target, std::span<const std::byte> source,
                                       std::span<const std::byte> guarded);

}  // namespace nvr::daemon
