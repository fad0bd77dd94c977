// nvr-streamer's command line.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tools/streamer/service.h"

namespace nvr::streamer {

struct Options {
  Settings settings;
  std::vector<std::pair<std::string, std::string>> disks;  // name, socket
  ConnectOptions connection;
};

// The options, or the code to exit with: everything that had to be said has been.
[[nodiscard]] tl::expected<Options, int> parse_options(int argc, char** argv);

}  // namespace nvr::streamer
