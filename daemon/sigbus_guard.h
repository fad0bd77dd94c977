// Catches SIGBUS in a copy from a file mapping, in the thread that makes the copy, for that mapping only. A
// SIGBUS from anywhere else still kills the process.
#pragma once

#include <cstddef>
#include <span>

namespace nvr::daemon {

// Installs the process-wide handler. Call once, before any guarded_copy().
void install_sigbus_handler();

// Copies `source` to `target`, then touches `*probe` (if not null), and returns the number of bytes copied:
// all of them, or, when the kernel could not provide a page of `guarded` (end of file, I/O error), those
// before that page; `probe_failed` says that it was the probe's page. `source` and `probe` lie within
// `guarded`.
struct GuardedCopy {
  std::size_t copied = 0;
  bool probe_failed = false;
};
[[nodiscard]] GuardedCopy guarded_copy(std::byte* target, std::span<const std::byte> source,
                                       const std::byte* probe, std::span<const std::byte> guarded);

}  // namespace nvr::daemon
