// Serves the metrics by HTTP: prometheus-cpp's Exposer (civetweb), alone in this room, with threads of its
// own. They read atomics and answer; a disk that hangs, or a control thread that is busy, is nothing to them,
// and nobody here waits for them.
//
// They are confined before they listen: no file, no capability, no connection to elsewhere. How many ask at a
// time is bounded (kMaxWaiting); a scraper that says nothing is dropped after kRequestTimeoutMs.
#pragma once

#include <memory>
#include <string>

#include "daemon/metrics.h"
#include "daemon/metrics_address.h"
#include "daemon/sandbox.h"

namespace prometheus {
class Exposer;
}

namespace nvr::daemon {

class MetricsServer {
 public:
  // Listens when this returns. `confine`: give up what it does not need, for the threads of the server only.
  [[nodiscard]] static Result<std::unique_ptr<MetricsServer>> start(const std::string& address, bool confine,
                                                                    std::shared_ptr<Metrics> metrics);
  ~MetricsServer();

  [[nodiscard]] std::string url() const;
  [[nodiscard]] const Confinement& confinement() const { return confinement_; }

 private:
  MetricsServer() = default;

  MetricsAddress address_;
  Confinement confinement_;
  std::shared_ptr<Metrics> metrics_;  // the exposer does not own it
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace nvr::daemon
