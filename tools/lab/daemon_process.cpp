#include "tools/lab/daemon_process.h"

#include <nlohmann/json.hpp>

#include "tools/ctl/control_session.h"
#include "tools/lab/failure.h"

namespace nvr::lab {
namespace {

Command command_of(const DaemonCommand& daemon) {
  std::vector<std::string> argv = {daemon.program, "--dir",    daemon.directory, "--socket",
                                   daemon.socket,  "--engine", daemon.engine};
  argv.insert(argv.end(), daemon.arguments.begin(), daemon.arguments.end());
  return {.argv = std::move(argv),
          .uid = daemon.uid,
          .max_descriptors = daemon.max_descriptors,
          .before_exec = daemon.before_exec};
}

}  // namespace

DaemonProcess::DaemonProcess(const DaemonCommand& command)
    : Server("the daemon", command_of(command)), socket_(command.socket) {
  if (command.wait_until_ready) require_ready("ready");
}

nlohmann::json DaemonProcess::status() const {
  auto session = tools::ControlSession::connect(socket_, kLongEnough);
  if (!session) throw Failure("status of the daemon: " + session.error().message);
  const auto answer = session->status();
  if (!answer) throw Failure("status of the daemon: " + answer.error().message);
  return nlohmann::json::parse(*answer);
}

std::uint64_t DaemonProcess::total(const std::string& name) const {
  return status().at("totals").at(name).get<std::uint64_t>();
}

bool DaemonProcess::wait_for_total(const std::string& name, std::uint64_t value) const {
  return wait_until([&] { return total(name) == value; });
}

}  // namespace nvr::lab
