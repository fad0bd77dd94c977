// Socket activation: systemd listens, starts the daemon at the first connect, and keeps the socket over its
// restarts, so that who connects meanwhile waits instead of being refused. At start, before any thread.
#pragma once

#include "daemon/options.h"
#include "nvr/error.h"

namespace nvr::daemon {

// Takes the listening socket that the environment passes, if there is one: `passed_listener` then holds it,
// and `socket_path` its path. FailedPrecondition where it is not what the daemon needs, naming the remedy.
[[nodiscard]] Result<void> take_passed_listener(Options& options);

}  // namespace nvr::daemon
