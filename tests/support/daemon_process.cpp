#include "tests/support/daemon_process.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "tests/support/proc.h"
#include "tests/support/streams.h"
#include "tools/ctl/control_session.h"

namespace nvr::test {
namespace {

std::vector<std::string> argv_of(const DaemonOptions& options) {
  std::vector<std::string> argv = {path_of_daemon(), "--dir",    options.directory, "--socket",
                                   options.socket,   "--engine", options.engine};
  argv.insert(argv.end(), options.arguments.begin(), options.arguments.end());
  return argv;
}

bool has_stopped(pid_t pid) {
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat");
  const auto end_of_name = stat.rfind(')');
  return end_of_name != std::string::npos && stat.substr(end_of_name).starts_with(") T");
}

}  // namespace

std::string path_of_daemon() {
  return NVR_TEST_READERD;
}
std::string path_of_cat() {
  return NVR_TEST_CAT;
}
std::string path_of_ctl() {
  return NVR_TEST_READERCTL;
}

DaemonProcess::DaemonProcess(const DaemonOptions& options) : socket_(options.socket) {
  process_.emplace(spawn({.argv = argv_of(options),
                          .uid = options.uid,
                          .max_descriptors = options.max_descriptors,
                          .restrictions = options.restrictions},
                         log_.fd(), log_.fd()));
  if (!options.wait_until_ready) return;
  const bool settled = wait_until([&] { return log().find("ready") != std::string::npos || !is_running(); });
  if (!settled || !is_running()) throw TestFailure("the daemon does not become ready; it said:\n" + log());
}

DaemonProcess& DaemonProcess::operator=(DaemonProcess&& other) noexcept {
  end_quietly();
  process_ = std::move(other.process_);
  other.process_.reset();
  log_ = std::move(other.log_);
  socket_ = std::move(other.socket_);
  return *this;
}

DaemonProcess::~DaemonProcess() {
  end_quietly();
}

void DaemonProcess::end_quietly() {
  if (!process_ || process_->pid() <= 0) return;
  if (process_->is_running()) {
    process_->signal(SIGCONT);
    process_->signal(SIGTERM);
    const auto exit = process_->wait();
    if (!exit)
      report_late_failure("a daemon ignores SIGTERM; it said:\n" + log());
    else if (*exit != Exit{.code = 0, .signal = {}})
      report_late_failure("a daemon ended with " + to_string(*exit) + "; it said:\n" + log());
  }
  const std::string text = log();
  if (text.find("Sanitizer") != std::string::npos || text.find("runtime error:") != std::string::npos)
    report_late_failure("a daemon's sanitizer speaks:\n" + text);
  process_.reset();
}

bool DaemonProcess::wait_for_log(std::string_view text, std::chrono::milliseconds bound) const {
  return wait_until([&] { return log().find(text) != std::string::npos; }, bound);
}

void DaemonProcess::stop() const {
  process_->signal(SIGSTOP);
  if (!wait_until([&] { return has_stopped(pid()); })) throw TestFailure("the daemon does not stop");
}

void DaemonProcess::kill() {
  process_->signal(SIGKILL);
  if (!process_->wait()) throw TestFailure("the daemon survives SIGKILL");
}

Exit DaemonProcess::terminate() {
  process_->signal(SIGTERM);
  const auto exit = process_->wait();
  if (!exit) throw TestFailure("the daemon ignores SIGTERM; it said:\n" + log());
  return *exit;
}

nlohmann::json DaemonProcess::status() const {
  auto session = tools::ControlSession::connect(socket_, kLongEnough);
  if (!session) throw TestFailure("status of the daemon: " + to_string(session.error()));
  const auto answer = session->status();
  if (!answer) throw TestFailure("status of the daemon: " + to_string(answer.error()));
  return nlohmann::json::parse(*answer);
}

std::uint64_t DaemonProcess::total(const std::string& name) const {
  return status().at("totals").at(name).get<std::uint64_t>();
}

bool DaemonProcess::wait_for_total(const std::string& name, std::uint64_t value) const {
  return wait_until([&] { return total(name) == value; });
}

Site::Site(const std::string& name) : directory_(root_ / name) {
  if (mkdir(directory_.c_str(), 0755) != 0)
    throw TestFailure("cannot create " + directory_ + ": " + strerror(errno));
}

RecordingFile Site::record(RecordingId id, std::uint64_t size) const {
  return make_recording(directory_, id, size, test_seed() + id.composite());
}

DaemonOptions Site::options(std::vector<std::string> arguments) const {
  return {.directory = directory_, .socket = socket(), .arguments = std::move(arguments)};
}

DaemonProcess Site::start(std::vector<std::string> arguments) const {
  return DaemonProcess(options(std::move(arguments)));
}

}  // namespace nvr::test
