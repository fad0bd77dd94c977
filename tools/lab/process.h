// Child processes: started, watched, and always reaped. They die with this process, however that ends.
//
// Start them from the main thread: the kernel ends them when the thread that started them ends.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "shm/unique_fd.h"
#include "tools/lab/wait.h"

namespace nvr::lab {

// Another user and group with no supplementary groups; coming from root, that is without capabilities too.
inline constexpr uid_t kNobody = 65534;

// How a process ended.
struct Exit {
  std::optional<int> code;  // by exit()
  std::optional<int> signal;

  friend bool operator==(const Exit&, const Exit&) = default;
};
[[nodiscard]] std::string to_string(const Exit& exit);

// One child process. Movable; the destructor kills it if need be, and reaps it.
class Process {
 public:
  explicit Process(pid_t pid) : pid_(pid) {}
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  ~Process();

  [[nodiscard]] pid_t pid() const { return pid_; }
  void signal(int number) const;
  // Waits until it has ended, and reaps it. Nothing when it has not within `bound`. Asked again, answers
  // again.
  std::optional<Exit> wait(std::chrono::milliseconds bound = kLongEnough);
  [[nodiscard]] bool is_running() { return !wait(std::chrono::milliseconds(0)).has_value(); }

 private:
  pid_t pid_;
  std::optional<Exit> exit_;
};

// A file in memory that catches what a child writes, without a thread that would have to read it.
class Capture {
 public:
  Capture();
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::string text() const;

 private:
  shm::UniqueFd fd_;
};

struct Command {
  std::vector<std::string> argv;  // argv[0]: path of the program
  std::optional<uid_t> uid = {};  // run as this user and the group of the same number
  std::optional<rlim_t> max_descriptors = {};
  // In the child, as the user that this process is: async-signal-safe. False: there is no program to run.
  std::function<bool()> before_exec = {};
};
// Starts a program. It inherits nothing but `output` and `errors` as its stdout and stderr, and `input` as
// its stdin (-1: an empty one).
[[nodiscard]] Process spawn(const Command& command, int output, int errors, int input = -1);

// Forks a child that does body() and ends. It has all descriptors, and no thread, of this process.
[[nodiscard]] Process fork_child(const std::function<void()>& body);

// Becomes another user for good. For children between fork and their work; async-signal-safe. False when
// refused.
[[nodiscard]] bool become_user(uid_t uid);
// Dies when `parent`, which forked this process, ends. After become_user(), which undoes it.
// Async-signal-safe.
void die_with(pid_t parent);

struct ProgramResult {
  Exit exit;
  std::string output;
  std::string errors;
};
// Runs a program to its end. Throws when that does not come.
[[nodiscard]] ProgramResult run_program(const Command& command);
[[nodiscard]] ProgramResult run_program(const std::vector<std::string>& argv);

}  // namespace nvr::lab
