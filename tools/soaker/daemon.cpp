#include "tools/soaker/daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

namespace nvr::soak {
namespace {

using std::chrono::milliseconds;

constexpr int kTries = 600;  // of 50 ms

std::uint64_t count_in(const std::string& directory) {
  std::error_code gone;
  std::uint64_t count = 0;
  for (std::filesystem::directory_iterator at(directory, gone), end; !gone && at != end; at.increment(gone))
    ++count;
  return count;
}

// Without the kernel's own for io_uring, which come and go.
std::uint64_t threads_of(const std::string& proc) {
  std::error_code gone;
  std::uint64_t count = 0;
  for (std::filesystem::directory_iterator at(proc + "/task", gone), end; !gone && at != end;
       at.increment(gone)) {
    std::ifstream comm(at->path() / "comm");
    std::string name;
    std::getline(comm, name);
    count += name.starts_with("iou-") ? 0 : 1;
  }
  return count;
}

std::string output_of(const std::string& command) {
  std::string output;
  FILE* const pipe = popen(command.c_str(), "re");
  char block[4096];
  while (pipe != nullptr && std::fgets(block, sizeof(block), pipe) != nullptr) output += block;
  if (pipe != nullptr) pclose(pipe);
  return output;
}

}  // namespace

std::string to_string(const Baseline& b) {
  return fmt::format(
      "{} descriptors, {} threads, {} connections, {} open streams, {} shared, {} held and {} quarantined "
      "bytes",
      b.descriptors, b.threads, b.connections, b.streams, b.shared_bytes, b.held_bytes, b.quarantined_bytes);
}

Daemon::Daemon(std::string programs, std::string engine, std::string directory, std::string socket,
               std::string log)
    : programs_(std::move(programs)),
      engine_(std::move(engine)),
      directory_(std::move(directory)),
      socket_(std::move(socket)),
      log_(std::move(log)) {}

Daemon::~Daemon() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

bool Daemon::start() {
  pid_ = fork();
  if (pid_ == 0) {
    const int log = open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    dup2(log, STDERR_FILENO);
    const std::string program = programs_ + "/daemon/nvr-readerd";
    execl(program.c_str(), program.c_str(), "--dir", directory_.c_str(), "--socket", socket_.c_str(),
          "--engine", engine_.c_str(), "--device-kind", "solid", nullptr);
    _exit(127);
  }
  for (int i = 0; i < kTries && is_running(); ++i) {
    std::ifstream log(log_);
    for (std::string line; std::getline(log, line);)
      if (line.find("ready") != std::string::npos) return true;
    std::this_thread::sleep_for(milliseconds(50));
  }
  return false;
}

bool Daemon::is_running() const {
  siginfo_t info = {};
  return pid_ > 0 && waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == 0;
}

std::optional<Baseline> Daemon::baseline() const {
  const auto status = nlohmann::json::parse(
      output_of(fmt::format("'{}/tools/nvr-readerctl' --socket '{}' status --json", programs_, socket_)),
      nullptr, false);
  if (!status.is_object() || !status.contains("totals")) return std::nullopt;
  const auto& totals = status["totals"];
  const std::string proc = "/proc/" + std::to_string(pid_);
  std::uint64_t descriptors = UINT64_MAX;
  for (int i = 0; i < 10; ++i) {  // until the connection that has asked is gone
    descriptors = std::min(descriptors, count_in(proc + "/fd"));
    std::this_thread::sleep_for(milliseconds(20));
  }
  return Baseline{.descriptors = descriptors,
                  .threads = threads_of(proc),
                  .connections = totals.value("connections_now", std::uint64_t{0}),
                  .streams = totals.value("streams_open", std::uint64_t{0}),
                  .shared_bytes = totals.value("shared_bytes", std::uint64_t{0}),
                  .held_bytes = totals.value("held_bytes", std::uint64_t{0}),
                  .quarantined_bytes = totals.value("quarantined_bytes", std::uint64_t{0})};
}

std::optional<int> Daemon::end() {
  kill(pid_, SIGTERM);
  for (int i = 0; i < kTries; ++i) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    std::this_thread::sleep_for(milliseconds(50));
  }
  return std::nullopt;
}

}  // namespace nvr::soak
