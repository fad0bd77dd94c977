// What a ring is good for, set before its first submission and for good: the operations and registrations of
// the io_uring engine and no others, since no filter of system calls sees what is submitted to a ring.
// The thread that creates the ring.
#pragma once

#include <liburing.h>

namespace nvr::daemon {

// `ring` was set up with IORING_SETUP_R_DISABLED; everything that is registered only once has been. Restricts
// it, if the kernel can, and enables it. 1: restricted; 0: the kernel cannot; or a negative errno.
[[nodiscard]] int restrict_and_enable(io_uring& ring);

}  // namespace nvr::daemon
