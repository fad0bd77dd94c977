#include "daemon/metrics.h"

#include <errno.h>
#include <prometheus/text_serializer.h>
#include <string.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "daemon/version.h"
#include "daemon/watchdog.h"
#include "nvr/error.h"
#include "shm/clock.h"

namespace nvr::daemon {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// The buckets that are shown: up to 8 us, and from there by powers of two up to 67 s.
constexpr std::size_t kFirstBucket = 3;
constexpr std::size_t kLastBucket = 26;

using Labels = std::vector<ClientMetric::Label>;

double seconds(std::uint64_t ns) {
  return static_cast<double>(ns) / 1e9;
}

ClientMetric metric_of(Labels labels, MetricType type, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (type == MetricType::Counter)
    metric.counter.value = value;
  else
    metric.gauge.value = value;
  return metric;
}

ClientMetric metric_of(Labels labels, const Histogram& histogram) {
  ClientMetric metric;
  metric.label = std::move(labels);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < Histogram::kBuckets; ++i) {
    count += histogram.bucket(i);
    if (i < kFirstBucket || i > kLastBucket) continue;
    const double bound_s = static_cast<double>(Histogram::upper_bound_us(i)) / 1e6;
    metric.histogram.bucket.push_back({.cumulative_count = count, .upper_bound = bound_s});
  }
  metric.histogram.sample_count = count;  // the sum of what was read, so that they agree
  metric.histogram.sample_sum = static_cast<double>(histogram.sum_us()) / 1e6;
  return metric;
}

// What is built up, family by family.
class Families {
 public:
  void add(MetricFamily family) { families_.push_back(std::move(family)); }
  void histogram(const char* name, const char* help, const Histogram& histogram) {
    add({name, help, MetricType::Histogram, {metric_of({}, histogram)}});
  }
  void counter(const char* name, const char* help, double value) {
    add({name, help, MetricType::Counter, {metric_of({}, MetricType::Counter, value)}});
  }
  void counter(const char* name, const char* help, const Counter& counted) {
    counter(name, help, static_cast<double>(counted.value()));
  }
  void gauge(const char* name, const char* help, double value) {
    add({name, help, MetricType::Gauge, {metric_of({}, MetricType::Gauge, value)}});
  }
  void gauge(const char* name, const char* help, const Counter& now) {
    gauge(name, help, static_cast<double>(now.value()));
  }
  [[nodiscard]] std::vector<MetricFamily> take() { return std::move(families_); }

 private:
  std::vector<MetricFamily> families_;
};

// Every code, so that an alert's rate() has something to start from.
MetricFamily opens_by_result(const DiskStatistics& disk) {
  MetricFamily family{
      "nvr_readerd_opens_total", "Streams opened, by what became of it.", MetricType::Counter, {}};
  for (std::size_t i = 0; i < kCodes; ++i)
    family.metric.push_back(metric_of({{"result", std::string(to_string(static_cast<Code>(i)))}},
                                      MetricType::Counter,
                                      static_cast<double>(disk.opens_by_code[i].value())));
  return family;
}

// Those that have happened, and EIO, for the same reason.
MetricFamily errors_by_errno(const DiskStatistics& disk) {
  MetricFamily family{"nvr_readerd_stream_errors_total",
                      "Streams that ended in an error, by the errno behind it (none: no system call failed).",
                      MetricType::Counter,
                      {}};
  for (std::size_t i = 0; i < kErrnos; ++i) {
    const std::uint64_t count = disk.errors_by_errno[i].value();
    if (count == 0 && i != EIO) continue;
    const char* const name = i == 0 ? "none" : strerrorname_np(static_cast<int>(i));
    family.metric.push_back(metric_of({{"errno", name != nullptr ? name : std::to_string(i)}},
                                      MetricType::Counter, static_cast<double>(count)));
  }
  return family;
}

MetricFamily errors_by_blame(const DiskStatistics& disk) {
  MetricFamily family{"nvr_readerd_errors_total",
                      "Streams that ended in an error, by the side to which it is due.",
                      MetricType::Counter,
                      {}};
  for (const auto& [name, blame] : {std::pair{"request", kRequestFailed}, std::pair{"disk", kDiskFailed},
                                    std::pair{"client", kBoundReached}})
    family.metric.push_back(metric_of({{"blame", name}}, MetricType::Counter,
                                      static_cast<double>(disk.errors_by_blame[blame].value())));
  return family;
}

void add_times(Families& families, const DiskStatistics& disk) {
  families.histogram("nvr_readerd_queue_wait_seconds", "From a command's arrival to the start of its open.",
                     disk.queue_wait);
  families.histogram("nvr_readerd_open_seconds", "Service time of opens.", disk.open_time);
  families.add({"nvr_readerd_read_seconds",
                "Service time of reads, by where the data was found.",
                MetricType::Histogram,
                {metric_of({{"source", "memory"}}, disk.memory_time),
                 metric_of({{"source", "disk"}}, disk.disk_time)}});
  families.histogram("nvr_readerd_first_chunk_seconds",
                     "From a command's arrival to its first chunk's publication.", disk.first_chunk);
}

void add_traffic(Families& families, const DiskStatistics& disk) {
  families.counter("nvr_readerd_published_chunks_total", "Chunks published to clients.", disk.chunks);
  families.counter("nvr_readerd_published_bytes_total", "Bytes in the published chunks.", disk.bytes);
  families.add(opens_by_result(disk));
  families.add(errors_by_errno(disk));
  families.add(errors_by_blame(disk));
  families.gauge("nvr_readerd_streams_open", "Streams that are open.", disk.streams_open);
  families.gauge("nvr_readerd_streams_ended",
                 "Of them those that have ended, while the disk still has an operation of theirs.",
                 disk.streams_ended);
  families.gauge("nvr_readerd_streams_waiting", "Open streams that wait for the disk.", disk.streams_waiting);
  families.gauge("nvr_readerd_slots", "Slots of all connections: the most credit there can be.", disk.slots);
  families.gauge("nvr_readerd_slots_lent", "Slots published and not returned: credit that clients hold.",
                 disk.slots_lent);
  families.gauge("nvr_readerd_quarantined_bytes",
                 "Memory of closed streams that the kernel may still write to.", disk.quarantined_bytes);
  families.counter("nvr_readerd_wakes_total", "Clients woken.", disk.wakes);
  families.counter("nvr_readerd_sleeps_total", "Times that the disk thread fell asleep.", disk.sleeps);
}

void add_visits(Families& families, const DiskStatistics& disk) {
  families.counter("nvr_readerd_visits_total", "Visits of the spinning disk begun.", disk.visits);
  families.gauge("nvr_readerd_visit_bytes", "How long a visit may be.", disk.visit_bytes);
  families.gauge("nvr_readerd_positioning_seconds", "What the head needs to get to a visit, as learnt.",
                 seconds(disk.positioning_ns.value()));
  families.gauge("nvr_readerd_disk_bytes_per_second", "What comes off the disk once the head is there.",
                 disk.disk_bytes_per_s);
  families.gauge("nvr_readerd_disk_efficiency_ratio", "Share of the disk's bandwidth that was had of late.",
                 static_cast<double>(disk.efficiency_ppm.value()) / 1e6);
  families.gauge("nvr_readerd_ahead_bytes", "Brought in and not read yet.", disk.ahead_bytes);
}

void add_clients(Families& families, const ControlStatistics& control) {
  families.gauge("nvr_readerd_serving", "1 once clients can connect.", control.is_serving);
  families.gauge("nvr_readerd_connections", "Connections of clients.", control.clients);
  families.gauge("nvr_readerd_control_connections", "Connections of operators' tools.", control.controls);
  families.counter("nvr_readerd_connections_accepted_total", "Handshakes completed.", control.accepted);
  families.counter("nvr_readerd_connections_refused_total", "Connections refused, whatever the reason.",
                   control.refused);
  families.counter("nvr_readerd_protocol_violations_total", "Clients disconnected for breaking the protocol.",
                   control.violations);
  families.gauge("nvr_readerd_shared_memory_bytes", "Shared memory on the books.", control.shared_bytes);
  families.gauge("nvr_readerd_held_memory_bytes", "Of it what clients keep of connections that have ended.",
                 control.held_bytes);
  families.counter("nvr_readerd_log_lines_lost_total",
                   "Lines of the log that could not be written, or not fast enough.", control.lost_lines);
}

// Prometheus takes no label that is not UTF-8, and a directory's name need not be.
std::string as_utf8(std::string_view text) {
  using nlohmann::json;
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

}  // namespace

Metrics::Metrics(const MetricsSources& sources)
    : sources_(sources),
      directory_(as_utf8(sources.directory)),
      started_s_(static_cast<double>(std::time(nullptr))) {}

std::string Metrics::text() const {
  Families families;
  const Labels labels = {{"version", kVersion},
                         {"engine", std::string(sources_.engine)},
                         {"device_kind", std::string(sources_.device_kind)},
                         {"directory", directory_}};
  families.add({"nvr_readerd_info",
                "What this daemon is.",
                MetricType::Gauge,
                {metric_of(labels, MetricType::Gauge, 1)}});
  families.gauge("nvr_readerd_start_time_seconds", "When it began to serve, since the epoch.", started_s_);
  add_times(families, sources_.disk);
  add_traffic(families, sources_.disk);
  if (sources_.has_visits) add_visits(families, sources_.disk);
  add_clients(families, sources_.control);

  const shm::OldestOperation oldest =
      find_stuck(sources_.in_flight.oldest(), sources_.disk.answered_ns.value(), 0, shm::now_ns());
  const bool is_stuck = oldest.stuck_ns >= sources_.slow_operation_ns;
  families.gauge("nvr_readerd_operations_in_flight", "Operations that the disk has not answered.",
                 sources_.in_flight.count());
  families.gauge("nvr_readerd_oldest_operation_age_seconds", "Age of the oldest of them.",
                 seconds(oldest.stuck_ns));
  families.gauge(
      "nvr_readerd_stall_age_seconds",
      "The same, where it is at least --slow-op-ms: for how long an operation has been stuck. Else 0.",
      is_stuck ? seconds(oldest.stuck_ns) : 0);
  families.gauge("nvr_readerd_silent_seconds",
                 "Of these, for how long the disk has answered nothing else either: for how long it has been "
                 "silent.",
                 is_stuck ? seconds(oldest.silent_ns) : 0);
  families.counter("nvr_readerd_stall_seconds_total", "For how long in all an operation had been stuck.",
                   seconds(sources_.control.stalled_ns.value()));
  families.gauge("nvr_readerd_refuses_opens", "1 while --fail-fast refuses new opens.",
                 sources_.control.refuses_opens);
  return prometheus::TextSerializer().Serialize(families.take());
}

}  // namespace nvr::daemon
