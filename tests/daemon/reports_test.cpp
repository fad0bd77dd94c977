// Reports for operators: each field holds the figure that its name promises.
#include <errno.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "daemon/stall_log.h"
#include "daemon/status.h"
#include "shm/clock.h"

namespace nvr::daemon {
namespace {

using nlohmann::json;

TEST_CASE("status: each number has its own name") {
  DiskStatistics disk;
  std::uint64_t n = 100;
  for (Counter* const counter :
       {&disk.streams_open, &disk.streams_waiting, &disk.opens, &disk.chunks, &disk.bytes, &disk.errors,
        &disk.wakes, &disk.sleeps, &disk.quarantined_bytes, &disk.visits, &disk.visit_bytes,
        &disk.disk_bytes_per_s, &disk.ahead_bytes})
    counter->set(++n);
  for (Counter& counter : disk.errors_by_blame) counter.set(++n);
  disk.streams_ended.set(++n);
  disk.visit_ns.set(60 * shm::kMillisecond);
  disk.positioning_ns.set(12 * shm::kMillisecond);
  disk.efficiency_ppm.set(750'000);
  disk.open_time.record_ns(1'500);
  disk.read_time.record_ns(3'000);
  disk.queue_wait.record_ns(9'000);
  disk.first_chunk.record_ns(17'000);
  disk.first_chunk.record_ns(18'000);
  Admission admission({.max_clients = 5,
                       .max_clients_per_uid = 4,
                       .client_memory_bytes = 64 << 20,
                       .total_memory_bytes = 100 << 20},
                      0, {});
  REQUIRE(admission.admit_client(0, 2, 4));
  const auto connection = Connection::create(7, {.pid = 8, .uid = 9}, {.streams = 2, .slots = 4}, 1, -1);
  REQUIRE(connection);
  (*connection)->chunks.add(3);
  (*connection)->bytes.add(4);
  const StatusSources sources{
      .engine = "an engine",
      .directory = "/a/disk\xff",
      .device_kind = "a kind",
      .has_visits = true,
      .instance = 11,
      .uptime_ns = 12 * shm::kSecond,
      .now_ns = 20 * shm::kSecond,
      .stall = {.operation = shm::DiskOperation::kOpen,
                .since_ns = 13 * shm::kSecond,
                .recording = 14,
                .offset = 15,
                .stuck_ns = 7 * shm::kSecond,
                .silent_ns = 5 * shm::kSecond / 2},
      .refuses_opens = true,
      .operations_in_flight = 16,
      .peers = {.accepted = 18, .refused = 19, .violations = 20, .controls = 17, .held_bytes = 21},
      .leaving = {.connections = 23, .unheard_streams = 1000, .waiting = 2},
      .lost_lines = 22,
      .admission = admission,
      .disk = disk,
      .connections = {connection->get()}};
  json status = json::parse(status_json(sources));
  for (const char* const elsewhere : {"version"}) status.erase(elsewhere);
  const auto histogram = [](std::uint64_t count, std::uint64_t sum_us, std::uint64_t below_us) {
    return json{{"count", count},
                {"sum_us", sum_us},
                {"buckets", json::array({{{"le_us", below_us}, {"count", count}}})}};
  };
  const json expected = {{"engine", "an engine"},
                         {"directory", "/a/disk\xef\xbf\xbd"},
                         {"device_kind", "a kind"},
                         {"instance", 11},
                         {"pid", getpid()},
                         {"uptime_s", 12.0},
                         {"stall",
                          {{"stuck", true},
                           {"refuses_opens", true},
                           {"since_s", 7.0},
                           {"silent_s", 2.5},
                           {"others_answered", false},
                           {"operation", "open"},
                           {"recording", "0/14"},
                           {"offset", 15}}},
                         {"operations_in_flight", 16},
                         {"visits",
                          {{"count", 110},
                           {"visit_bytes", 111},
                           {"disk_bytes_per_s", 112},
                           {"ahead_bytes", 113},
                           {"visit_s", 0.06},
                           {"positioning_s", 0.012},
                           {"efficiency", 0.75}}},
                         {"connections", json::array({{{"id", 7},
                                                       {"pid", 8},
                                                       {"uid", 9},
                                                       {"streams", 2},
                                                       {"open_streams", 0},
                                                       {"slots", 4},
                                                       {"bytes_shared", admission.memory_bytes()},
                                                       {"chunks", 3},
                                                       {"bytes", 4}}})},
                         {"totals",
                          {{"connections_now", 1},
                           {"control_connections_now", 17},
                           {"connections_leaving", 23},
                           {"connections_accepted", 18},
                           {"connections_refused", 19},
                           {"violations", 20},
                           {"held_bytes", 21},
                           {"streams_open", 101},
                           {"streams_waiting", 100},
                           {"streams_ended", 1117},
                           {"opens", 103},
                           {"chunks", 104},
                           {"bytes", 105},
                           {"errors", 106},
                           {"errors_of_requests", 114},
                           {"errors_of_disk", 115},
                           {"errors_of_clients", 116},
                           {"wakes", 107},
                           {"sleeps", 108},
                           {"quarantined_bytes", 109},
                           {"log_lines_lost", 22},
                           {"shared_bytes", admission.memory_bytes()}}},
                         {"limits",
                          {{"max_clients", 5},
                           {"max_clients_per_uid", 4},
                           {"client_memory_bytes", 64 << 20},
                           {"total_memory_bytes", 100 << 20}}},
                         {"histograms",
                          {{"open_us", histogram(1, 1, 2)},
                           {"read_us", histogram(1, 3, 4)},
                           {"queue_wait_us", histogram(1, 9, 16)},
                           {"first_chunk_us", histogram(2, 35, 32)}}}};
  CHECK(status == expected);
}

TEST_CASE("the stall log: each operation with all that is known of it, and what is stuck now") {
  StallLog log;
  log.add({.operation = {.operation = shm::DiskOperation::kRead, .since_ns = 1, .recording = 2, .offset = 3},
           .length = 4,
           .duration_ns = 5 * shm::kSecond,
           .is_slow = true,
           .error = EIO,
           .connection = 6,
           .peer = {.pid = 7, .uid = 8}},
          9'500);
  const json expected = {
      {"slow_from_s", 2.0},
      {"total", 1},
      {"kept", 1},
      {"lost", 10},
      {"stuck", {{"operation", "open"}, {"recording", "0/11"}, {"offset", 12}, {"since_s", 3.0}}},
      {"operations", json::array({{{"operation", "read"},
                                   {"recording", "0/2"},
                                   {"offset", 3},
                                   {"length", 4},
                                   {"duration_s", 5.0},
                                   {"errno", EIO},
                                   {"error", "Input/output error"},
                                   {"ended_s", 9.5},
                                   {"connection", 6},
                                   {"pid", 7},
                                   {"uid", 8}}})}};
  CHECK(json::parse(log.json({.stuck = {.operation = shm::DiskOperation::kOpen,
                                        .since_ns = 20 * shm::kSecond,
                                        .recording = 11,
                                        .offset = 12},
                              .now_ns = 23 * shm::kSecond,
                              .slow_ns = 2 * shm::kSecond,
                              .reports_lost = 10})) == expected);
}

}  // namespace
}  // namespace nvr::daemon
