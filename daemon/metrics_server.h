// Serves the metrics by HTTP, in a thread of its own that waits for its sockets only. It reads atomics and
// answers; a disk that hangs, or a control thread that is busy, is nothing to it, and nobody waits for it.
//
// A connection is for one request. There are kMaxConnections at a time: one more takes the place of the
// oldest, so those that say nothing keep nobody out. After kPatienceNs a connection is closed in any case.
// The thread is confined before it reads: no file, no capability, no new socket.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>

#include "daemon/metrics.h"
#include "daemon/metrics_address.h"
#include "daemon/sandbox.h"
#include "shm/clock.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

class MetricsServer {
 public:
  static constexpr std::size_t kMaxConnections = 64;
  static constexpr std::uint64_t kPatienceNs = 5 * shm::kSecond;

  // Listens when this returns. `metrics` outlives the server. `confine`: give up what it does
  // not need, for the thread of the server only.
  [[nodiscard]] static Result<std::unique_ptr<MetricsServer>> start(const std::string& address, bool confine,
                                                                    const Metrics& metrics);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  [[nodiscard]] const std::string& url() const { return url_; }
  [[nodiscard]] const Confinement& confinement() const { return confinement_; }

 private:
  struct Connection {
    shm::UniqueFd socket;
    std::uint64_t deadline_ns = 0;
    std::string request;   // until it is whole
    std::string response;  // from then on
    std::size_t sent = 0;
  };

  MetricsServer(const Metrics& metrics, shm::UniqueFd listener, shm::UniqueFd stop);

  void run();
  void accept_some();
  [[nodiscard]] bool go_on(Connection& connection) const;
  [[nodiscard]] std::string respond_to(std::string_view request) const;

  const Metrics* metrics_;
  shm::UniqueFd listener_;
  shm::UniqueFd stop_;
  std::string url_;
  Confinement confinement_;
  std::deque<Connection> connections_;  // the oldest first
  std::thread thread_;
};

}  // namespace nvr::daemon
