#include "daemon/status.h"

#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "daemon/version.h"
#include "daemon/watchdog.h"
#include "nvr/recording.h"
#include "shm/clock.h"

namespace nvr::daemon {
namespace {

using nlohmann::ordered_json;

double seconds(std::uint64_t ns) {
  return static_cast<double>(ns) / 1e9;
}

// Buckets that are empty are left out. The count is the sum of what was read, so that they agree.
ordered_json to_json(const Histogram& histogram) {
  ordered_json buckets = ordered_json::array();
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < Histogram::kBuckets; ++i) {
    const std::uint64_t in_bucket = histogram.bucket(i);
    if (in_bucket == 0) continue;
    count += in_bucket;
    buckets.push_back({{"le_us", Histogram::upper_bound_us(i)}, {"count", in_bucket}});
  }
  return {{"count", count}, {"sum_us", histogram.sum_us()}, {"buckets", buckets}};
}

ordered_json to_json(const shm::OldestOperation& stall, bool refuses_opens, std::uint64_t now_ns) {
  if (stall.operation == shm::DiskOperation::kNone) return {{"stuck", false}};
  return {{"stuck", true},
          {"refuses_opens", refuses_opens},
          {"since_s", seconds(stall.stuck_ns)},
          {"silent_s", seconds(stall.silent_ns)},
          {"others_answered", shm::answers_others(stall, now_ns)},
          {"operation", stall.operation == shm::DiskOperation::kOpen ? "open" : "read"},
          {"recording", to_string(RecordingId::from_composite(stall.recording))},
          {"offset", stall.offset}};
}

double ratio_of(const Counter& ppm) {
  return static_cast<double>(ppm.value()) / 1e6;
}

// What the daemon has learnt of a spinning disk.
ordered_json visits_of(const DiskStatistics& disk) {
  return {{"count", disk.visits.value()},
          {"visit_bytes", disk.visit_bytes.value()},
          {"visit_s", seconds(disk.visit_ns.value())},
          {"positioning_s", seconds(disk.positioning_ns.value())},
          {"disk_bytes_per_s", disk.disk_bytes_per_s.value()},
          {"efficiency", ratio_of(disk.efficiency_ppm)},
          {"ahead_bytes", disk.ahead_bytes.value()}};
}

ordered_json to_json(const Connection& connection) {
  return {{"id", connection.id()},
          {"pid", connection.peer().pid},
          {"uid", connection.peer().uid},
          {"streams", connection.geometry().streams},
          {"open_streams", connection.open_streams()},
          {"slots", connection.geometry().slots},
          {"bytes_shared", connection.shared_bytes()},
          {"chunks", connection.chunks.value()},
          {"bytes", connection.bytes.value()}};
}

}  // namespace

std::string status_json(const StatusSources& sources) {
  const DiskStatistics& disk = sources.disk;
  const Peers::Totals& peers = sources.peers;
  const std::uint64_t waiting = disk.streams_waiting.value();
  const Limits& limits = sources.admission.limits();
  ordered_json connections = ordered_json::array();
  for (const Connection* const connection : sources.connections) connections.push_back(to_json(*connection));
  const ordered_json status = {
      {"engine", sources.engine},
      {"directory", sources.directory},
      {"instance", sources.instance},
      {"pid", getpid()},
      {"uptime_s", seconds(sources.uptime_ns)},
      {"version", kVersion},
      {"device_kind", sources.device_kind},
      {"stall", to_json(sources.stall, sources.refuses_opens, sources.now_ns)},
      {"operations_in_flight", sources.operations_in_flight},
      {"visits", sources.has_visits ? visits_of(disk) : ordered_json()},
      {"connections", connections},
      {"totals",
       {{"connections_now", sources.connections.size()},
        {"control_connections_now", peers.controls},
        {"connections_leaving", sources.leaving.connections},
        {"connections_accepted", peers.accepted},
        {"connections_refused", peers.refused},
        {"streams_open", disk.streams_open.value()},
        {"streams_ended", disk.streams_ended.value() + sources.leaving.unheard_streams},
        {"streams_waiting", waiting - std::min<std::uint64_t>(waiting, sources.leaving.waiting)},
        {"opens", disk.opens.value()},
        {"chunks", disk.chunks.value()},
        {"bytes", disk.bytes.value()},
        {"errors", disk.errors.value()},
        {"errors_of_requests", disk.errors_by_blame[kRequestFailed].value()},
        {"errors_of_disk", disk.errors_by_blame[kDiskFailed].value()},
        {"errors_of_clients", disk.errors_by_blame[kBoundReached].value()},
        {"wakes", disk.wakes.value()},
        {"sleeps", disk.sleeps.value()},
        {"violations", peers.violations},
        {"shared_bytes", sources.admission.memory_bytes()},
        {"held_bytes", peers.held_bytes},
        {"quarantined_bytes", disk.quarantined_bytes.value()},
        {"log_lines_lost", sources.lost_lines}}},
      {"limits",
       {{"max_clients", limits.max_clients},
        {"max_clients_per_uid", limits.max_clients_per_uid},
        {"client_memory_bytes", limits.client_memory_bytes},
        {"total_memory_bytes", limits.total_memory_bytes}}},
      {"histograms",
       {{"open_us", to_json(disk.open_time)},
        {"read_us", to_json(disk.read_time)},
        {"queue_wait_us", to_json(disk.queue_wait)},
        {"first_chunk_us", to_json(disk.first_chunk)}}}};
  // A directory's name need not be UTF-8.
  return status.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace nvr::daemon
