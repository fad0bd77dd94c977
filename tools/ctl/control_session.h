// A control connection to a daemon: a handshake with no streams, hence no segments and no descriptors; then
// questions and their answers, one at a time. Never waits longer than its timeout.
#pragma once

#include <chrono>
#include <string>

#include "nvr/error.h"
#include "shm/protocol.h"
#include "shm/unique_fd.h"

namespace nvr::tools {

class ControlSession {
 public:
  // Unavailable when nobody listens at `socket_path` or no answer comes in time: the daemon's control thread
  // never waits for the disk, so that is a daemon that is stopped or dead. `timeout` bounds this and each
  // question.
  [[nodiscard]] static Result<ControlSession> connect(std::string socket_path,
                                                      std::chrono::milliseconds timeout);
  // The same over a socket that is connected already; `socket_path` is for messages.
  [[nodiscard]] static Result<ControlSession> over(shm::UniqueFd socket, std::string socket_path,
                                                   std::chrono::milliseconds timeout);

  // Each answers with a text of the daemon's in UTF-8: JSON, but for the metrics. FailedPrecondition of a
  // daemon that is too old to know the question. After an error the session is of no use any more.
  [[nodiscard]] Result<std::string> status() { return ask(shm::StatusRequest{}); }
  [[nodiscard]] Result<std::string> streams() { return ask(shm::StreamsRequest{}); }
  [[nodiscard]] Result<std::string> stall_log() { return ask(shm::StallLogRequest{}); }
  [[nodiscard]] Result<std::string> metrics() { return ask(shm::MetricsRequest{}); }
  [[nodiscard]] Result<std::string> disconnect(std::uint32_t connection) {
    return ask(shm::DisconnectRequest{.connection = connection});
  }

 private:
  ControlSession(std::string path, std::chrono::milliseconds timeout, shm::UniqueFd socket,
                 std::uint16_t daemon_minor)
      : path_(std::move(path)), timeout_(timeout), socket_(std::move(socket)), daemon_minor_(daemon_minor) {}

  template <class Request>
  [[nodiscard]] Result<std::string> ask(const Request& request);
  [[nodiscard]] Result<std::string> receive_answer(std::uint64_t deadline_ns);

  std::string path_;
  std::chrono::milliseconds timeout_;
  shm::UniqueFd socket_;
  std::uint16_t daemon_minor_;
};

}  // namespace nvr::tools
