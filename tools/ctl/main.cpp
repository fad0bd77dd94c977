// nvr-readerctl: asks a running nvr-readerd about itself. Touches neither the disk nor any segment, so it
// answers while the disk hangs.
#include <fmt/format.h>

#include <cmath>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tools/common/command_line.h"
#include "tools/common/exit_code.h"
#include "tools/ctl/control_session.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/stall_report.h"
#include "tools/ctl/status_report.h"
#include "tools/ctl/stream_table.h"
#include "tools/ctl/top.h"

namespace nvr::tools {
namespace {

using nlohmann::json;

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

int print(const std::string& text) {
  fmt::print("{}", text);
  if (std::fflush(stdout) != 0)
    return report({.code = Code::kAborted, .message = "cannot write to standard output"});
  return kExitOk;
}

std::string line_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

using Question = Result<std::string> (ControlSession::*)();

Result<json> parse(const Result<std::string>& answer) {
  if (!answer) return tl::unexpected(answer.error());
  json parsed = json::parse(*answer, nullptr, false);
  if (!parsed.is_object()) return fail(Code::kInternal, "the daemon's answer is not a JSON object");
  return parsed;
}

Result<json> ask(const std::string& socket_path, Question question) {
  auto session = ControlSession::connect(socket_path, kTimeout);
  if (!session) return tl::unexpected(session.error());
  return parse((*session.*question)());
}

int show_status(const std::string& socket_path, bool as_json) {
  const auto status = ask(socket_path, &ControlSession::status);
  if (!status) return report(status.error());
  const ReportContext context = {.now_s = std::time(nullptr), .process_of = process_name};
  return print(as_json ? line_of(*status) : status_report(*status, context));
}

int show_streams(const std::string& socket_path, bool as_json) {
  auto answer = ask(socket_path, &ControlSession::streams);
  if (!answer) return report(answer.error());
  RateMeter().rate((*answer)["streams"], 0);  // since they were opened
  name_processes((*answer)["streams"], process_name);
  return print(as_json ? line_of(*answer) : streams_report(*answer));
}

int show_stall_log(const std::string& socket_path, bool as_json) {
  const auto log = ask(socket_path, &ControlSession::stall_log);
  if (!log) return report(log.error());
  return print(as_json ? line_of(*log) : stall_report(*log, process_name));
}

int show_metrics(const std::string& socket_path) {
  auto session = ControlSession::connect(socket_path, kTimeout);
  if (!session) return report(session.error());
  const auto text = session->metrics();
  return text ? print(*text) : report(text.error());
}

int disconnect(const std::string& socket_path, std::uint32_t connection, bool as_json) {
  auto session = ControlSession::connect(socket_path, kTimeout);
  if (!session) return report(session.error());
  const auto answer = parse(session->disconnect(connection));
  if (!answer) return report(answer.error());
  if (const json& error = child(*answer, "error"); error.is_object())
    return report({.code = static_cast<Code>(integer(error, "code")), .message = text_of(error, "message")});
  const json& who = child(*answer, "disconnected");
  return print(as_json ? line_of(*answer)
                       : fmt::format("connection {} of pid {}, uid {} is disconnected\n", connection,
                                     integer(who, "pid"), integer(who, "uid")));
}

int run(int argc, char** argv) {
  std::string socket_path;
  bool as_json = false;
  std::uint32_t connection = 0;
  double interval_s = 1;
  TopOptions top_options;
  CLI::App app("Asks a running nvr-readerd about itself, also while its disk hangs.", "nvr-readerctl");
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Exit codes: 0 done, 1 other, 2 usage, 3 no such connection, 6 no daemon answers, 8 PermissionDenied,\n"
      "9 ResourceExhausted.");
  app.add_option("--socket", socket_path, "Socket of the daemon")
      ->envname("NVR_SOCKET")
      ->required()
      ->option_text("PATH");
  const auto add = [&](const char* name, const char* about) {
    CLI::App* const command = app.add_subcommand(name, about);
    command->add_flag("--json", as_json, "For scripts");
    return command;
  };
  auto* const status = add("status", "Stall state, connections, streams, bytes and latencies");
  auto* const streams = add("streams", "Every open stream: who, what, rate, how long it waits and for what");
  auto* const live = add("top", "The streams, live: `q` quits. Not on a terminal: printed once per interval");
  live->add_option("--interval", interval_s, "Between two looks")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str()
      ->option_text("SECONDS");
  live->add_option("--count", top_options.count, "How often to look; 0: until it is ended")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->option_text("N");
  auto* const stall_log =
      add("stall-log", "Slow and failed operations of the disk, by recording and range: the suspect sectors");
  auto* const metrics =
      app.add_subcommand("metrics", "What --metrics serves to Prometheus, for textfile collectors");
  auto* const end = add("disconnect", "End a connection; for root and the daemon's own user");
  end->add_option("CONNECTION", connection, "Its number, as status and streams show it")->required();
  if (const auto code = parse_command_line(app, argc, argv)) return *code;

  if (status->parsed()) return show_status(socket_path, as_json);
  if (streams->parsed()) return show_streams(socket_path, as_json);
  if (stall_log->parsed()) return show_stall_log(socket_path, as_json);
  if (metrics->parsed()) return show_metrics(socket_path);
  if (end->parsed()) return disconnect(socket_path, connection, as_json);
  top_options.socket_path = socket_path;
  top_options.interval = std::chrono::milliseconds(std::lround(interval_s * 1000));
  top_options.as_json = as_json;
  top_options.process_of = process_name;
  const auto code = top(top_options);
  return code ? *code : report(code.error());
}

}  // namespace
}  // namespace nvr::tools

int main(int argc, char** argv) {
  return nvr::tools::run(argc, argv);
}
