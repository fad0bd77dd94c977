// The metrics, as Prometheus names and counts them: made from the statistics of both threads at the moment
// when somebody asks, over HTTP (metrics_server.h) or on a control connection. Each is named here only. Any
// thread. Reads atomics, and nothing else: each number is exact by itself.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/in_flight.h"
#include "daemon/statistics.h"

namespace nvr::daemon {

struct MetricsSources {
  std::string_view engine;  // of static life
  std::string_view directory;
  std::string_view device_kind;  // of static life
  bool has_visits = false;       // a spinning disk
  std::uint64_t slow_operation_ns = 0;
  const DiskStatistics& disk;
  const ControlStatistics& control;
  const InFlight& in_flight;
};

class Metrics {
 public:
  explicit Metrics(const MetricsSources& sources);

  // In Prometheus' text form.
  [[nodiscard]] std::string text() const;

 private:
  MetricsSources sources_;
  std::string directory_;  // as UTF-8
  double started_s_;       // since the epoch
};

}  // namespace nvr::daemon
