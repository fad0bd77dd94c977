// nvr-streamer as a real process, and a client of HTTP that is in the hand of the test: every byte that it
// sends, and when it reads.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "shm/unique_fd.h"
#include "tests/support/daemon_process.h"

namespace nvr::test {

// The path of a program of this machine. Throws TestFailure where there is none; see missing_program().
[[nodiscard]] std::string path_of_program(const std::string& name);
// Why a test that needs these programs cannot run; nothing if it can.
[[nodiscard]] std::optional<std::string> missing_program(const std::vector<std::string>& names);

// Movable. The destructor ends it with SIGTERM; a streamer that does not end well makes the test program
// fail.
class StreamerProcess {
 public:
  // Starts it on a free port and waits until it is ready, and connected to every disk whose daemon is there
  // already. `disks`: name and socket.
  explicit StreamerProcess(const std::vector<std::pair<std::string, std::string>>& disks,
                           std::vector<std::string> arguments = {});
  StreamerProcess(StreamerProcess&&) noexcept = default;
  ~StreamerProcess();

  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string url(const std::string& target) const;
  [[nodiscard]] pid_t pid() const { return process_->pid(); }
  [[nodiscard]] std::string log() const { return log_.text(); }
  [[nodiscard]] bool is_running() { return process_->is_running(); }
  void signal(int number) const { process_->signal(number); }
  void kill();
  [[nodiscard]] std::optional<Exit> wait() { return process_->wait(); }

  // The value of a line of /metrics, labels included; 0 when there is none.
  [[nodiscard]] double metric(const std::string& name) const;

 private:
  std::optional<Process> process_;
  Capture log_;
  std::uint16_t port_ = 0;
};

struct Reply {
  unsigned status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  bool is_complete = false;  // as long as Content-Length says

  [[nodiscard]] std::string header(const std::string& name) const;
};

// One connection. Its calls throw TestFailure when nothing happens for long.
class Wire {
 public:
  explicit Wire(std::uint16_t port);

  // False when the other end has closed it.
  bool send(std::string_view bytes);
  bool ask(const std::string& target, const std::vector<std::string>& headers = {},
           const std::string& method = "GET");
  // The next response, its body included. status 0 when the connection ends before one has begun.
  [[nodiscard]] Reply receive(bool is_head = false);
  // The head of the next response; then take() reads of its body what there is, up to `most`: fewer bytes are
  // its end.
  [[nodiscard]] Reply receive_head();
  [[nodiscard]] std::string take(std::size_t most);
  // Has anything come, the end included, that was not received yet?
  [[nodiscard]] bool has_news() const;
  // Reads on until the other end closes it. False when it does not.
  [[nodiscard]] bool is_closed_by_peer();

 private:
  bool fill();

  shm::UniqueFd fd_;
  std::string buffer_;
};

// One request on a connection of its own.
[[nodiscard]] Reply ask(const StreamerProcess& streamer, const std::string& target,
                        const std::vector<std::string>& headers = {}, const std::string& method = "GET");

// A whole reply with exactly [begin, end) of `file`: what is wrong with it, empty if nothing.
[[nodiscard]] std::string problem_with(const Reply& reply, unsigned status, const RecordingFile& file,
                                       std::uint64_t begin, std::uint64_t end);

}  // namespace nvr::test
