// nvr-streamer as a real process.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/http.h"

namespace nvr::test {

// The path of a program of this machine. Throws TestFailure where there is none; see missing_program().
[[nodiscard]] std::string path_of_program(const std::string& name);
// Why a test that needs these programs cannot run; nothing if it can.
[[nodiscard]] std::optional<std::string> missing_program(const std::vector<std::string>& names);

class StreamerProcess : public Server {
 public:
  // Starts it on a free port and waits until it is ready, and connected to every disk whose daemon is there
  // already. `disks`: name and socket.
  explicit StreamerProcess(const std::vector<std::pair<std::string, std::string>>& disks,
                           const std::vector<std::string>& arguments = {});
  StreamerProcess(StreamerProcess&&) noexcept = default;
  ~StreamerProcess();  // what a test has left open is not waited for

  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string url(const std::string& target) const;

  // The value of a line of /metrics, labels included; 0 when there is none.
  [[nodiscard]] double metric(const std::string& name) const;

 private:
  std::uint16_t port_ = 0;
};

// One request on a connection of its own.
[[nodiscard]] Reply ask(const StreamerProcess& streamer, const std::string& target,
                        const std::vector<std::string>& headers = {}, const std::string& method = "GET");

// A whole reply with exactly [begin, end) of `file`: what is wrong with it, empty if nothing.
[[nodiscard]] std::string problem_with(const Reply& reply, unsigned status, const RecordingFile& file,
                                       std::uint64_t begin, std::uint64_t end);

}  // namespace nvr::test
