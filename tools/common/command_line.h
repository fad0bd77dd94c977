// Parsing a command line to the contract: --help and --version exit 0, anything wrong is one line on stderr
// and exit 2.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>

#include "tools/common/exit_code.h"

namespace nvr::tools {

// Adds --version, and parses. Nothing when the program is to go on; its exit code otherwise.
[[nodiscard]] std::optional<int> parse_command_line(CLI::App& app, int argc, char** argv);

}  // namespace nvr::tools
