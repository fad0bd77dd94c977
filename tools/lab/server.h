// A program that serves until it is told to end, and what it says meanwhile. Test thread only.
#pragma once

#include <signal.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "tools/lab/process.h"
#include "tools/lab/wait.h"

namespace nvr::lab {

// Movable. The destructor ends it with SIGTERM. A server that does not end with exit 0, or whose sanitizer
// reports something, is a late failure.
class Server {
 public:
  // `name`: for messages, such as "the daemon".
  Server(std::string name, const Command& command);
  Server(Server&&) noexcept = default;
  Server& operator=(Server&& other) noexcept;
  ~Server();

  [[nodiscard]] pid_t pid() const { return process_ ? process_->pid() : -1; }
  // What it has written to stdout and stderr.
  [[nodiscard]] std::string log() const { return log_.text(); }
  [[nodiscard]] bool wait_for_log(std::string_view text, std::chrono::milliseconds bound = kLongEnough) const;
  [[nodiscard]] bool is_running() { return process_->is_running(); }

  void signal(int number) const { process_->signal(number); }
  void stop() const;  // SIGSTOP, and waits until it has stopped
  void go_on() const { process_->signal(SIGCONT); }
  void kill();                     // SIGKILL, and waits for its end
  [[nodiscard]] Exit terminate();  // SIGTERM, and waits for its end
  [[nodiscard]] std::optional<Exit> wait() { return process_->wait(); }

  // Waits until `is_ready()`, or for a log that says so. Throws, with the log, when that does not come.
  void require_ready(const std::function<bool()>& is_ready);
  void require_ready(std::string_view text) {
    require_ready([&] { return log().find(text) != std::string::npos; });
  }

 private:
  void end_quietly();

  std::string name_;
  std::optional<Process> process_;
  Capture log_;
};

}  // namespace nvr::lab
