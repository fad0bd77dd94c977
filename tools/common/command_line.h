// Parsing a command line to the contract: --help exits 0, anything wrong is one line on stderr and exit 2.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>

#include "tools/common/exit_code.h"

namespace nvr::tools {

// Nothing when the program is to go on; its exit code otherwise.
[[nodiscard]] inline std::optional<int> parse_command_line(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& help) {
    return app.exit(help);  // prints the help
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "{}: {} (see --help)\n", app.get_name(), error.what());
    return kExitUsage;
  }
}

}  // namespace nvr::tools
