#include "tools/common/command_line.h"

#include <fmt/format.h>

#include <cstdio>

#include "shm/did_you_mean.h"
#include "shm/protocol.h"
#include "tools/common/version.h"

namespace nvr::tools {
namespace {

std::string build_facts(const std::string& program) {
  const std::string sanitizers = *kSanitizers == '\0' ? "" : std::string(", sanitizers: ") + kSanitizers;
  return fmt::format("{} {}\nprotocol: {}.{}\ncompiler: {}\nbuild type: {}{}", program, kVersion,
                     shm::kVersionMajor, shm::kVersionMinor, kCompiler, kBuildType, sanitizers);
}

}  // namespace

std::optional<int> parse_command_line(CLI::App& app, int argc, char** argv) {
  app.set_version_flag("--version", build_facts(app.get_name()),
                       "Show the version, and what the program was built by, and exit");
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& shown) {
    return app.exit(shown);  // prints what was asked for
  } catch (const CLI::ParseError& error) {
    auto mistakes = shm::unexpected_arguments(app);
    if (mistakes.empty()) mistakes.emplace_back(error.what());
    for (const std::string& mistake : mistakes)
      fmt::print(stderr, "{}: {} (see --help)\n", app.get_name(), mistake);
    return kExitUsage;
  }
}

}  // namespace nvr::tools
