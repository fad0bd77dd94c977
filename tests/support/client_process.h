// A client in a process of its own, so that it can be killed, or be another user.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "shm/unique_fd.h"
#include "tests/support/process.h"

namespace nvr::test {

// The child's side: lines for the parent. Throw TestFailure, or call require(), to end with a failure.
class Reporter {
 public:
  explicit Reporter(int fd) : fd_(fd) {}
  void line(const std::string& text) const;
  // Throws `what` unless `condition`.
  static void require(bool condition, const std::string& what);

 private:
  int fd_;
};

class ClientProcess {
 public:
  using Body = std::function<void(const Reporter&)>;

  // Forks a child that runs `body` and ends. It keeps none of this process's descriptors.
  [[nodiscard]] static ClientProcess start(const Body& body, std::optional<uid_t> uid = {});

  [[nodiscard]] pid_t pid() const { return process_.pid(); }
  void signal(int number) const { process_.signal(number); }
  // The next line of the child's. Throws when it does not come.
  [[nodiscard]] std::string next_line();
  // Waits for the child's end: empty if `body` returned, else what went wrong.
  [[nodiscard]] std::string failure();
  // Reaps a child that has been killed.
  void reap() { process_.wait(); }

 private:
  ClientProcess(Process process, shm::UniqueFd reports)
      : process_(std::move(process)), reports_(std::move(reports)) {}
  bool read_more();

  Process process_;
  shm::UniqueFd reports_;
  std::string unread_;
};

}  // namespace nvr::test
