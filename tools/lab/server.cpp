#include "tools/lab/server.h"

#include "tools/lab/failure.h"
#include "tools/lab/proc.h"

namespace nvr::lab {

Server::Server(std::string name, const Command& command) : name_(std::move(name)) {
  process_.emplace(spawn(command, log_.fd(), log_.fd()));
}

Server& Server::operator=(Server&& other) noexcept {
  end_quietly();
  name_ = std::move(other.name_);
  process_ = std::move(other.process_);
  other.process_.reset();
  log_ = std::move(other.log_);
  return *this;
}

Server::~Server() {
  end_quietly();
}

void Server::end_quietly() {
  if (!process_ || process_->pid() <= 0) return;
  if (process_->is_running()) {
    process_->signal(SIGTERM);
    // Only a stopped one: SIGCONT takes back the SIGSTOP with which LeakSanitizer stops a process at its end.
    if (state_of_thread(pid(), pid()) == 'T') process_->signal(SIGCONT);
    const auto exit = process_->wait();
    if (!exit)
      report_late_failure(name_ + " ignores SIGTERM; it said:\n" + log());
    else if (*exit != Exit{.code = 0, .signal = {}})
      report_late_failure(name_ + " ended with " + to_string(*exit) + "; it said:\n" + log());
  }
  const std::string text = log();
  if (text.find("Sanitizer") != std::string::npos || text.find("runtime error:") != std::string::npos)
    report_late_failure("the sanitizer of " + name_ + " speaks:\n" + text);
  process_.reset();
}

bool Server::wait_for_log(std::string_view text, std::chrono::milliseconds bound) const {
  return wait_until([&] { return log().find(text) != std::string::npos; }, bound);
}

void Server::stop() const {
  process_->signal(SIGSTOP);
  if (!wait_until([&] { return state_of_thread(pid(), pid()) == 'T'; }))
    throw Failure(name_ + " does not stop");
}

void Server::kill() {
  process_->signal(SIGKILL);
  if (!process_->wait()) throw Failure(name_ + " survives SIGKILL");
}

Exit Server::terminate() {
  process_->signal(SIGTERM);
  const auto exit = process_->wait();
  if (!exit) throw Failure(name_ + " ignores SIGTERM; it said:\n" + log());
  return *exit;
}

void Server::require_ready(const std::function<bool()>& is_ready) {
  const bool settled = wait_until([&] { return is_ready() || !is_running(); });
  if (!settled || !is_running()) throw Failure(name_ + " does not become ready; it said:\n" + log());
}

}  // namespace nvr::lab
