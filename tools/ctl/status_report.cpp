#include "tools/ctl/status_report.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>

#include "tools/ctl/figures.h"

namespace nvr::tools {
namespace {

using nlohmann::json;

// ---- Sections

std::string heading(const json& status) {
  return fmt::format(
      "nvr-readerd {}  pid {}  up {}\n"
      "directory    {} ({})\n"
      "engine       {}\n",
      text_of(status, "version"), text_of(status, "pid"), duration(number(status, "uptime_s")),
      text_of(status, "directory"), text_of(status, "device_kind"), text_of(status, "engine"));
}

std::string disk_section(const json& status, const ReportContext& context) {
  const json& stall = child(status, "stall");
  std::string queue = fmt::format("{} in flight", integer(status, "operations_in_flight"));
  const json& totals = child(status, "totals");
  const std::int64_t ended = integer(totals, "streams_ended");
  if (child(totals, "streams_waiting").is_number())
    queue += fmt::format(", {} of {} open streams wait for it{}", integer(totals, "streams_waiting"),
                         streams_served(totals),
                         ended > 0 ? fmt::format(", and {} that {} ended", ended, ended == 1 ? "has" : "have")
                                   : std::string());
  if (!stall.is_object()) return fmt::format("disk         ? (the daemon does not say; {})\n", queue);
  if (!flag(stall, "stuck")) return fmt::format("disk         ok, nothing stuck ({})\n", queue);

  const double stuck_s = number(stall, "since_s");
  const std::int64_t since = context.now_s - static_cast<std::int64_t>(stuck_s);
  const std::string operation = text_of(stall, "operation");
  const std::string where =
      operation == "read" ? fmt::format(" at byte {}", grouped(integer(stall, "offset"))) : std::string();
  return fmt::format(
      "disk         {} for {}, since {}\n"
      "             in: {} {}{}  ({})\n"
      "             Clients get deadlines, not hangs. The kernel's view: dmesg | tail; smartctl -a <disk>\n",
      flag(stall, "others_answered") ? "answers, but one operation is STUCK" : "STUCK", duration(stuck_s),
      clock_time(since), operation, text_of(stall, "recording"), where, queue);
}

// Of a spinning disk: what it can, and what becomes of it.
std::string visits_section(const json& status) {
  const json& visits = child(status, "visits");
  if (!visits.is_object()) return {};
  if (integer(visits, "count") == 0) return "visits       none yet\n";
  return fmt::format(
      "visits       {} so far, of up to {} in {}; {} to get there, then {}/s\n"
      "             efficiency {:.0f} % of that of late; {} brought in ahead\n",
      grouped(integer(visits, "count")), bytes(number(visits, "visit_bytes")),
      microseconds(number(visits, "visit_s") * 1e6), microseconds(number(visits, "positioning_s") * 1e6),
      bytes(number(visits, "disk_bytes_per_s")), number(visits, "efficiency") * 100,
      bytes(number(visits, "ahead_bytes")));
}

std::string connection_line(const json& connection, const ReportContext& context) {
  const std::int64_t pid = integer(connection, "pid");
  const std::string process = context.process_of ? printable(context.process_of(pid)) : std::string();
  return fmt::format(
      "{:>6} {:>9}  {:<16} {:>7} {:>5} of {:<4} {:>7} {:>11} {:>15} {:>12}\n", text_of(connection, "id"), pid,
      process.empty() ? "-" : process, text_of(connection, "uid"), integer(connection, "open_streams"),
      integer(connection, "streams"), integer(connection, "slots"), bytes(number(connection, "bytes_shared")),
      grouped(integer(connection, "chunks")), bytes(number(connection, "bytes")));
}

std::string connections_section(const json& status, const ReportContext& context) {
  const json& connections = child(status, "connections");
  const json& totals = child(status, "totals");
  const std::int64_t leaving = integer(totals, "connections_leaving");
  std::string out = fmt::format(
      "\nconnections  {} now{}, {} accepted, {} refused\n",
      connections.is_array() ? std::to_string(connections.size()) : text_of(totals, "connections_now"),
      leaving > 0 ? fmt::format(" and {} that {}", leaving,
                                leaving == 1 ? "has ended and waits for the disk"
                                             : "have ended and wait for the disk")
                  : std::string(),
      grouped(integer(totals, "connections_accepted")), grouped(integer(totals, "connections_refused")));
  if (!connections.is_array() || connections.empty()) return out;
  out += fmt::format("{:>6} {:>9}  {:<16} {:>7} {:>13} {:>7} {:>11} {:>15} {:>12}\n", "id", "pid", "process",
                     "uid", "open streams", "window", "shared", "chunks", "delivered");
  for (const json& connection : connections) out += connection_line(connection, context);
  return out;
}

std::string totals_section(const json& status) {
  const json& totals = child(status, "totals");
  std::string out = fmt::format(
      "\ndelivered    {} in {} chunks, {} opens, {} streams open now\n"
      "trouble      {} streams ended in an error of the disk, {} in one of the request, {} at a bound of the "
      "client, {} protocol violations\n"
      "memory       {} shared",
      bytes(number(totals, "bytes")), grouped(integer(totals, "chunks")), grouped(integer(totals, "opens")),
      streams_served(totals), grouped(integer(totals, "errors_of_disk")),
      grouped(integer(totals, "errors_of_requests")), grouped(integer(totals, "errors_of_clients")),
      grouped(integer(totals, "violations")), bytes(number(totals, "shared_bytes")));
  const json& limits = child(status, "limits");
  if (child(limits, "total_memory_bytes").is_number())
    out += fmt::format(" of at most {}", bytes(number(limits, "total_memory_bytes")));
  out += fmt::format(", {} kept by clients that left, {} waiting for the disk\n",
                     bytes(number(totals, "held_bytes")), bytes(number(totals, "quarantined_bytes")));
  return out;
}

// The upper bound of the bucket that holds the given part of what was counted.
double quantile_bound_us(const json& histogram, double part) {
  const json& buckets = child(histogram, "buckets");
  if (!buckets.is_array()) return 0;
  double total = 0;
  for (const json& bucket : buckets) total += number(bucket, "count");
  double below = 0;
  double bound = 0;
  for (const json& bucket : buckets) {
    const double count = number(bucket, "count");
    if (count <= 0) continue;
    below += count;
    bound = number(bucket, "le_us");
    if (below >= part * total) break;
  }
  return bound;
}

std::string latency_line(std::string_view label, const json& histogram) {
  const std::int64_t count = integer(histogram, "count");
  if (count <= 0) return fmt::format("  {:<24} {:>14}\n", label, "-");
  const double mean = number(histogram, "sum_us") / static_cast<double>(count);
  std::string out = fmt::format("  {:<24} {:>14} {:>11}", label, grouped(count), microseconds(mean));
  for (const double part : {0.5, 0.95, 0.99, 1.0})
    out += fmt::format(" {:>11}", "<" + microseconds(quantile_bound_us(histogram, part)));
  return out + "\n";
}

std::string latency_section(const json& status) {
  static constexpr std::array<std::pair<const char*, std::string_view>, 4> kShown = {
      {{"open_us", "open a file"},
       {"read_us", "read (one operation)"},
       {"queue_wait_us", "wait before the open"},
       {"first_chunk_us", "first chunk of a stream"}}};
  const json& histograms = child(status, "histograms");
  if (!histograms.is_object()) return {};
  std::string out = fmt::format("\n{:<26} {:>14} {:>11} {:>11} {:>11} {:>11} {:>11}\n", "latency", "count",
                                "mean", "p50", "p95", "p99", "max");
  for (const auto& [key, label] : kShown)
    if (const json& histogram = child(histograms, key); histogram.is_object())
      out += latency_line(label, histogram);
  return out;
}

}  // namespace

std::string status_report(const json& status, const ReportContext& context) {
  return heading(status) + disk_section(status, context) + visits_section(status) +
         connections_section(status, context) + totals_section(status) + latency_section(status);
}

}  // namespace nvr::tools
