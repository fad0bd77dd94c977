#include "tests/support/client_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>

namespace nvr::test {
namespace {

constexpr int kReports = 3;  // the child's end of the pipe
constexpr char kFailed[] = "FAILED: ";

[[noreturn]] void run_child(const ClientProcess::Body& body, int reports, std::optional<uid_t> uid,
                            pid_t parent) {
  signal(SIGALRM, SIG_DFL);
  if (uid && !become_user(*uid)) _exit(126);
  die_with(parent);
  if (reports != kReports) dup2(reports, kReports);
  syscall(SYS_close_range, kReports + 1, ~0u, 0);
  const Reporter reporter(kReports);
  try {
    body(reporter);
  } catch (const std::exception& error) {
    reporter.line(kFailed + std::string(error.what()));
    _exit(1);
  }
  _exit(0);
}

}  // namespace

void Reporter::line(const std::string& text) const {
  const std::string bytes = text + '\n';
  if (write(fd_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) _exit(125);
}

void Reporter::require(bool condition, const std::string& what) {
  if (!condition) throw TestFailure(what);
}

ClientProcess ClientProcess::start(const Body& body, std::optional<uid_t> uid) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw TestFailure("cannot create a pipe");
  shm::UniqueFd read_end(ends[0]);
  const shm::UniqueFd write_end(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw TestFailure("cannot fork");
  if (pid == 0) run_child(body, write_end.get(), uid, parent);
  return ClientProcess(Process(pid), std::move(read_end));
}

bool ClientProcess::read_more() {
  pollfd entry = {.fd = reports_.get(), .events = POLLIN, .revents = 0};
  if (poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(kLongEnough).count())) == 0)
    throw TestFailure("a client process neither speaks nor ends");
  char bytes[4096];
  const ssize_t length = read(reports_.get(), bytes, sizeof(bytes));
  if (length > 0) unread_.append(bytes, static_cast<std::size_t>(length));
  return length > 0 || (length < 0 && errno == EINTR);
}

std::string ClientProcess::next_line() {
  for (;;) {
    const auto end = unread_.find('\n');
    if (end != std::string::npos) {
      const std::string line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      if (line.starts_with(kFailed)) throw TestFailure("a client process: " + line);
      return line;
    }
    if (!read_more()) throw TestFailure("a client process ended early: " + failure());
  }
}

std::string ClientProcess::failure() {
  while (read_more()) {
  }
  const auto exit = process_.wait();
  if (!exit) return "does not end";
  if (*exit == Exit{.code = 0, .signal = {}}) return "";
  const auto found = unread_.find(kFailed);
  return to_string(*exit) + " " + (found == std::string::npos ? "" : unread_.substr(found));
}

}  // namespace nvr::test
