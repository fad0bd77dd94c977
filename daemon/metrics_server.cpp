#include "daemon/metrics_server.h"

#include <prometheus/exposer.h>

#include <exception>
#include <utility>
#include <vector>

#include "daemon/limits.h"

namespace nvr::daemon {
namespace {

constexpr const char* kThreads = "2";
constexpr const char* kMaxWaiting = "8";
constexpr const char* kRequestTimeoutMs = "5000";

}  // namespace

MetricsServer::~MetricsServer() = default;

Result<std::unique_ptr<MetricsServer>> MetricsServer::start(const std::string& address, bool confine,
                                                            std::shared_ptr<Metrics> metrics) {
  auto parsed = MetricsAddress::parse(address);
  if (!parsed) return tl::unexpected(parsed.error());
  std::unique_ptr<MetricsServer> server(new MetricsServer);
  server->address_ = std::move(*parsed);
  server->metrics_ = std::move(metrics);
  if (auto free = server->address_.check_free(); !free) return tl::unexpected(free.error());
  std::string problem;
  // The server's threads inherit what this one has left.
  auto ancestor = start_thread(
      [&] {
        if (confine) server->confinement_ = confine_metrics_thread();
        try {
          server->exposer_ = std::make_unique<prometheus::Exposer>(std::vector<std::string>{
              "listening_ports", server->address_.to_string(server->address_.port), "num_threads", kThreads,
              "connection_queue", kMaxWaiting, "request_timeout_ms", kRequestTimeoutMs});
          server->exposer_->RegisterCollectable(server->metrics_);
        } catch (const std::exception& error) {
          problem = error.what();
        }
      },
      "a thread for the metrics");
  if (!ancestor) return tl::unexpected(ancestor.error());
  ancestor->join();
  if (!problem.empty())
    return fail(Code::kUnavailable, "cannot serve metrics at " + address + " (--metrics): " + problem);
  return server;
}

std::string MetricsServer::url() const {
  const auto ports = exposer_->GetListeningPorts();
  return "http://" + address_.to_string(ports.empty() ? address_.port : ports.front()) + "/metrics";
}

}  // namespace nvr::daemon
