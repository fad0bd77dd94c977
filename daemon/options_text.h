// The options as a file that --config reads: what is in force, with what was left to the daemon filled in.
// Pure.
#pragma once

#include <string>

#include "daemon/options.h"

namespace nvr::daemon {

[[nodiscard]] std::string as_config(const Options& options);

}  // namespace nvr::daemon
