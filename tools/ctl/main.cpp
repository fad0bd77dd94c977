// nvr-readerctl: asks a running nvr-readerd about itself. Touches neither the disk nor any segment, so it
// answers while the disk hangs.
#include <fmt/format.h>

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tools/common/command_line.h"
#include "tools/common/exit_code.h"
#include "tools/ctl/status_query.h"
#include "tools/ctl/status_report.h"

namespace nvr::tools {
namespace {

constexpr std::chrono::milliseconds kTimeout{1000};

std::string process_name(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/comm", pid));
  std::string name;
  std::getline(file, name);
  return name;
}

int report(const Error& error) {
  fmt::print(stderr, "nvr-readerctl: {}\n", error.message);
  return exit_code_of(error.code);
}

int show_status(const std::string& socket_path, bool as_json) {
  const auto text = query_status(socket_path, kTimeout);
  if (!text) return report(text.error());
  const auto status = nlohmann::json::parse(*text, nullptr, false);
  if (!status.is_object())
    return report({.code = Code::kInternal, .message = "the daemon's status is not a JSON object"});
  const ReportContext context = {.now_s = std::time(nullptr), .process_of = process_name};
  fmt::print("{}", as_json ? *text + "\n" : status_report(status, context));
  if (std::fflush(stdout) != 0)
    return report({.code = Code::kAborted, .message = "cannot write to standard output"});
  return kExitOk;
}

int run(int argc, char** argv) {
  std::string socket_path;
  bool as_json = false;
  CLI::App app("Asks a running nvr-readerd about itself.", "nvr-readerctl");
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Exit codes: 0 done, 1 other, 2 usage, 6 no daemon answers, 8 PermissionDenied, 9 ResourceExhausted.");
  app.add_option("--socket", socket_path, "Socket of the daemon")->required()->option_text("PATH");
  auto* const status = app.add_subcommand("status", "Stall state, connections, streams, bytes and latencies");
  status->add_flag("--json", as_json, "The daemon's own words, for scripts");
  if (const auto code = parse_command_line(app, argc, argv)) return *code;
  return show_status(socket_path, as_json);
}

}  // namespace
}  // namespace nvr::tools

int main(int argc, char** argv) {
  return nvr::tools::run(argc, argv);
}
