// Asks a daemon for its status text over a control connection: a handshake with no streams, hence no segments
// and no descriptors. Never waits longer than its timeout.
#pragma once

#include <chrono>
#include <string>

#include "nvr/error.h"

namespace nvr::tools {

// The daemon's status, JSON in UTF-8. Unavailable when nobody listens at `socket_path` or no answer comes in
// time: the daemon's control thread never waits for the disk, so that is a daemon that is stopped or dead.
[[nodiscard]] Result<std::string> query_status(const std::string& socket_path,
                                               std::chrono::milliseconds timeout);

}  // namespace nvr::tools
