// nvr-readerd as a real process, and the programs that talk to it.
#pragma once

#include <signal.h>

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/recording_file.h"
#include "tests/support/temp_dir.h"

namespace nvr::test {

// Where the programs under test are.
[[nodiscard]] std::string path_of_daemon();
[[nodiscard]] std::string path_of_cat();
[[nodiscard]] std::string path_of_ctl();

struct DaemonOptions {
  std::string directory;
  std::string socket;
  std::vector<std::string> arguments = {};  // more of them
  std::optional<uid_t> uid = {};
  std::optional<rlim_t> max_descriptors = {};
  Restrictions restrictions = {};
  std::string engine = engine_under_test();
  bool wait_until_ready = true;
};

// Movable. The destructor ends the daemon with SIGTERM, and a daemon that does not end well, or whose
// sanitizer had something to say, makes the test program fail.
class DaemonProcess {
 public:
  // Starts it and waits for the line that says "ready". Throws, with its log, when that does not come.
  explicit DaemonProcess(const DaemonOptions& options);
  DaemonProcess(DaemonProcess&&) noexcept = default;
  DaemonProcess& operator=(DaemonProcess&& other) noexcept;
  ~DaemonProcess();

  [[nodiscard]] pid_t pid() const { return process_->pid(); }
  [[nodiscard]] const std::string& socket() const { return socket_; }
  // What it has written to stderr.
  [[nodiscard]] std::string log() const { return log_.text(); }
  [[nodiscard]] bool wait_for_log(std::string_view text, std::chrono::milliseconds bound = kLongEnough) const;
  [[nodiscard]] bool is_running() { return process_->is_running(); }
  [[nodiscard]] bool wait_until_ready() { return wait_for_log("ready"); }

  void signal(int number) const { process_->signal(number); }
  void stop() const;  // SIGSTOP, and waits until all its threads have stopped
  void go_on() const { process_->signal(SIGCONT); }
  void kill();                     // SIGKILL, and waits for its end
  [[nodiscard]] Exit terminate();  // SIGTERM, and waits for its end
  [[nodiscard]] std::optional<Exit> wait() { return process_->wait(); }

  // What `nvr-readerctl status --json` says, asked for by this process. Throws when there is no answer.
  [[nodiscard]] nlohmann::json status() const;
  // status()["totals"][name]
  [[nodiscard]] std::uint64_t total(const std::string& name) const;
  [[nodiscard]] bool wait_for_total(const std::string& name, std::uint64_t value) const;

 private:
  void end_quietly();

  std::optional<Process> process_;
  Capture log_;
  std::string socket_;
};

// A directory of sample files, a place for the socket, and how most tests start a daemon there.
class Site {
 public:
  explicit Site(const std::string& name = "samples");

  [[nodiscard]] const TempDir& root() const { return root_; }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string socket() const { return root_ / "reader.sock"; }

  // A recording with a seed of its own.
  [[nodiscard]] RecordingFile record(RecordingId id, std::uint64_t size) const;
  [[nodiscard]] DaemonOptions options(std::vector<std::string> arguments = {}) const;
  [[nodiscard]] DaemonProcess start(std::vector<std::string> arguments = {}) const;

 private:
  TempDir root_;
  std::string directory_;
};

}  // namespace nvr::test
