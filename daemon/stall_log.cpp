#include "daemon/stall_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "nvr/recording.h"

namespace nvr::daemon {
namespace {

using nlohmann::ordered_json;

double seconds(std::uint64_t ns) {
  return static_cast<double>(ns) / 1e9;
}

ordered_json described(const shm::OldestOperation& operation) {
  return {{"operation", operation.operation == shm::DiskOperation::kOpen ? "open" : "read"},
          {"recording", to_string(RecordingId::from_composite(operation.recording))},
          {"offset", operation.offset}};
}

}  // namespace

void StallLog::add(const OperationReport& report, std::int64_t ended_ms) {
  const Entry entry{.report = report, .ended_ms = ended_ms};
  if (entries_.size() < kEntries)
    entries_.push_back(entry);
  else
    entries_[total_ % kEntries] = entry;
  ++total_;
}

std::string StallLog::json(const Now& now) const {
  ordered_json operations = ordered_json::array();
  const std::size_t oldest = total_ > kEntries ? total_ % kEntries : 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[(oldest + i) % entries_.size()];
    const OperationReport& report = entry.report;
    ordered_json operation = described(report.operation);
    operation["length"] = report.length;
    operation["duration_s"] = seconds(report.duration_ns);
    operation["errno"] = report.error;
    operation["error"] =
        report.error == 0 ? ordered_json() : ordered_json(std::generic_category().message(report.error));
    operation["ended_s"] = static_cast<double>(entry.ended_ms) / 1e3;
    operation["connection"] = report.connection;
    operation["pid"] = report.peer.pid;
    operation["uid"] = report.peer.uid;
    operations.push_back(std::move(operation));
  }
  ordered_json stuck;
  if (now.stuck.operation != shm::DiskOperation::kNone) {
    stuck = described(now.stuck);
    stuck["since_s"] = seconds(now.now_ns - std::min(now.now_ns, now.stuck.since_ns));
  }
  const ordered_json log = {{"slow_from_s", seconds(now.slow_ns)},
                            {"total", total_},
                            {"kept", entries_.size()},
                            {"lost", now.reports_lost},
                            {"stuck", stuck},
                            {"operations", operations}};
  return log.dump();
}

}  // namespace nvr::daemon
