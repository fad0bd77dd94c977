#include "tools/lab/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "tools/lab/failure.h"

namespace nvr::lab {
namespace {

std::optional<Exit> reap(pid_t pid, int flags) {
  int status = 0;
  pid_t ended = 0;
  do ended = waitpid(pid, &status, flags);
  while (ended < 0 && errno == EINTR);
  if (ended != pid) return std::nullopt;
  Exit exit;
  if (WIFEXITED(status)) exit.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) exit.signal = WTERMSIG(status);
  return exit;
}

}  // namespace

std::string to_string(const Exit& exit) {
  if (exit.code) return "exit " + std::to_string(*exit.code);
  return "signal " + std::to_string(exit.signal.value_or(0));
}

Process::Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, -1)), exit_(other.exit_) {}

Process& Process::operator=(Process&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(exit_, other.exit_);
  return *this;
}

Process::~Process() {
  if (pid_ <= 0 || exit_) return;
  kill(pid_, SIGKILL);
  reap(pid_, 0);
}

void Process::signal(int number) const {
  if (exit_) throw Failure("signal for a process that has ended: " + to_string(*exit_));
  if (kill(pid_, number) != 0) throw Failure(std::string("cannot signal a child: ") + strerror(errno));
}

std::optional<Exit> Process::wait(std::chrono::milliseconds bound) {
  if (exit_) return exit_;
  const shm::UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  const auto deadline = std::chrono::steady_clock::now() + bound;
  for (;;) {
    if ((exit_ = reap(pid_, WNOHANG))) return exit_;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return std::nullopt;
    pollfd entry = {.fd = pidfd.get(), .events = POLLIN, .revents = 0};
    poll(&entry, 1, static_cast<int>(left.count()));
  }
}

Capture::Capture() : fd_(memfd_create("nvr-lab-output", MFD_CLOEXEC)) {
  if (!fd_) throw Failure("cannot create a memfd");
  if (fchmod(fd_.get(), 0666) != 0) throw Failure("cannot open up a memfd");
}

std::string Capture::text() const {
  struct stat st = {};
  if (fstat(fd_.get(), &st) != 0) throw Failure("cannot stat a memfd");
  std::string text(static_cast<std::size_t>(st.st_size), '\0');
  const ssize_t length = pread(fd_.get(), text.data(), text.size(), 0);
  if (length < 0) throw Failure("cannot read a memfd");
  text.resize(static_cast<std::size_t>(length));
  return text;
}

bool become_user(uid_t uid) {
  return setgroups(0, nullptr) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0;
}

void die_with(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
}

Process spawn(const Command& command, int output, int errors, int input) {
  // Opened here, so that the other user need not be able to search the directories on the way.
  const shm::UniqueFd program(open(command.argv.at(0).c_str(), O_PATH | O_CLOEXEC));
  if (!program) throw Failure("cannot open the program " + command.argv[0] + ": " + strerror(errno));
  const shm::UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::vector<char*> argv;
  for (const std::string& argument : command.argv) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw Failure(std::string("cannot fork: ") + strerror(errno));
  if (pid > 0) return Process(pid);

  signal(SIGPIPE, SIG_DFL);
  signal(SIGALRM, SIG_DFL);
  if (command.max_descriptors) {
    const rlimit limit = {.rlim_cur = *command.max_descriptors, .rlim_max = *command.max_descriptors};
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (command.before_exec && !command.before_exec()) _exit(126);
  if (command.uid && !become_user(*command.uid)) _exit(126);
  die_with(parent);
  dup2(input >= 0 ? input : null.get(), STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(errors, STDERR_FILENO);
  syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
  syscall(SYS_execveat, program.get(), "", argv.data(), environ, AT_EMPTY_PATH);
  _exit(127);
}

Process fork_child(const std::function<void()>& body) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) throw Failure(std::string("cannot fork: ") + strerror(errno));
  if (pid > 0) return Process(pid);
  die_with(parent);
  body();
  _exit(0);
}

ProgramResult run_program(const Command& command) {
  const Capture output;
  const Capture errors;
  Process process = spawn(command, output.fd(), errors.fd());
  const auto exit = process.wait();
  if (!exit) throw Failure(command.argv[0] + " does not end; it said: " + errors.text());
  return {.exit = *exit, .output = output.text(), .errors = errors.text()};
}

ProgramResult run_program(const std::vector<std::string>& argv) {
  return run_program(Command{.argv = argv});
}

}  // namespace nvr::lab
