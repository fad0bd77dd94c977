#include "tools/ctl/metrics_report.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <sstream>
#include <vector>

#include "tools/ctl/figures.h"

namespace nvr::tools {
namespace {

using nlohmann::json;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// A number of the status, and what it is called: as in the daemon's own --metrics, whose labels the status
// does not have. Kept in step by hand with status_json of the daemon: what a daemon does not say is left out.
struct Figure {
  const char* key;
  const char* name;
  const char* help;
};

constexpr std::initializer_list<Figure> kCounters = {
    {"connections_accepted", "nvr_readerd_connections_accepted_total", "Connections let in."},
    {"connections_refused", "nvr_readerd_connections_refused_total", "Connections not let in."},
    {"violations", "nvr_readerd_protocol_violations_total", "Clients ended for breaking the protocol."},
    {"opens", "nvr_readerd_opens_total", "Opens that the disk has answered."},
    {"chunks", "nvr_readerd_published_chunks_total", "Chunks published to clients."},
    {"bytes", "nvr_readerd_published_bytes_total", "Bytes in them."},
    {"errors", "nvr_readerd_stream_errors_total", "Streams that ended in an error."},
    {"wakes", "nvr_readerd_wakes_total", "Wakes of sleeping clients."},
    {"sleeps", "nvr_readerd_sleeps_total", "Sleeps of the disk thread."}};

constexpr std::initializer_list<Figure> kGauges = {
    {"connections_now", "nvr_readerd_connections", "Connections with streams."},
    {"control_connections_now", "nvr_readerd_control_connections", "Control connections."},
    {"streams_open", "nvr_readerd_streams_open", "Streams that are open."},
    {"streams_waiting", "nvr_readerd_streams_waiting", "Of them those that wait for the disk."},
    {"shared_bytes", "nvr_readerd_shared_memory_bytes", "Memory shared with clients."},
    {"held_bytes", "nvr_readerd_held_memory_bytes", "Of it what clients that have left still keep."},
    {"quarantined_bytes", "nvr_readerd_quarantined_bytes",
     "Slots of closed streams that the disk still owes."}};

constexpr std::initializer_list<Figure> kHistograms = {
    {"open_us", "nvr_readerd_open_seconds", "How long the disk took to open a recording."},
    {"read_us", "nvr_readerd_read_seconds", "How long the disk took for a read of up to 64 chunks."},
    {"queue_wait_us", "nvr_readerd_queue_wait_seconds", "How long opens waited for their turn."},
    {"first_chunk_us", "nvr_readerd_first_chunk_seconds",
     "How long clients waited for a stream's first chunk."}};

constexpr std::initializer_list<Figure> kVisits = {
    {"positioning_s", "nvr_readerd_positioning_seconds", "Learnt time to get to a place on the disk."},
    {"disk_bytes_per_s", "nvr_readerd_disk_bytes_per_second", "Learnt bandwidth of the disk."},
    {"efficiency", "nvr_readerd_disk_efficiency_ratio", "Part of that bandwidth which is used, of late."},
    {"ahead_bytes", "nvr_readerd_ahead_bytes", "Brought in ahead and not read yet."}};

class Families {
 public:
  void gauge(const char* name, const char* help, double value, std::vector<ClientMetric::Label> labels = {}) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.gauge.value = value;
    families_.push_back({.name = name, .help = help, .type = MetricType::Gauge, .metric = {metric}});
  }
  void counter(const char* name, const char* help, double value) {
    ClientMetric metric;
    metric.counter.value = value;
    families_.push_back({.name = name, .help = help, .type = MetricType::Counter, .metric = {metric}});
  }
  void histogram(const char* name, const char* help, const json& histogram_us) {
    ClientMetric metric;
    std::uint64_t below = 0;
    if (const json& buckets = child(histogram_us, "buckets"); buckets.is_array())
      for (const json& bucket : buckets) {
        below += static_cast<std::uint64_t>(integer(bucket, "count"));
        metric.histogram.bucket.push_back(
            {.cumulative_count = below, .upper_bound = number(bucket, "le_us") / 1e6});
      }
    metric.histogram.bucket.push_back(
        {.cumulative_count = below, .upper_bound = std::numeric_limits<double>::infinity()});
    metric.histogram.sample_count = below;
    metric.histogram.sample_sum = number(histogram_us, "sum_us") / 1e6;
    families_.push_back({.name = name, .help = help, .type = MetricType::Histogram, .metric = {metric}});
  }
  [[nodiscard]] std::string text() const {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, families_);
    return out.str();
  }

 private:
  std::vector<MetricFamily> families_;
};

}  // namespace

std::string metrics_report(const json& status) {
  Families families;
  families.gauge("nvr_readerd_info", "What serves what.", 1,
                 {{"version", text_of(status, "version")},
                  {"directory", text_of(status, "directory")},
                  {"engine", text_of(status, "engine")},
                  {"device_kind", text_of(status, "device_kind")}});
  families.gauge("nvr_readerd_uptime_seconds", "Since the daemon started.", number(status, "uptime_s"));
  families.gauge("nvr_readerd_operations_in_flight", "Operations that the disk has not answered.",
                 number(status, "operations_in_flight"));
  const json& stall = child(status, "stall");
  families.gauge("nvr_readerd_stall_age_seconds", "For how long the disk has been stuck; 0: it is not.",
                 flag(stall, "stuck") ? number(stall, "since_s") : 0);
  const json& totals = child(status, "totals");
  for (const auto& [key, name, help] : kCounters)
    if (child(totals, key).is_number()) families.counter(name, help, number(totals, key));
  for (const auto& [key, name, help] : kGauges)
    if (child(totals, key).is_number()) families.gauge(name, help, number(totals, key));
  if (const json& visits = child(status, "visits"); visits.is_object()) {
    families.counter("nvr_readerd_visits_total", "Visits of streams on the disk.", number(visits, "count"));
    for (const auto& [key, name, help] : kVisits)
      if (child(visits, key).is_number()) families.gauge(name, help, number(visits, key));
  }
  const json& histograms = child(status, "histograms");
  for (const auto& [key, name, help] : kHistograms)
    if (const json& histogram = child(histograms, key); histogram.is_object())
      families.histogram(name, help, histogram);
  return families.text();
}

}  // namespace nvr::tools
