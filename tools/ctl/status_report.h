// The daemon's status for a person: what is stuck and since when comes first, then who is connected, what has
// been delivered, and how long things took. Pure, apart from the names of processes.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace nvr::tools {

struct ReportContext {
  std::int64_t now_s = 0;                               // wall clock, seconds since the epoch
  std::function<std::string(std::int64_t)> process_of;  // the name of a pid; empty when it is not known
};

// Fields that are missing or of another type are shown as "?", "-" or 0; those that are not known are left
// out: the daemon may be older or newer than this tool.
[[nodiscard]] std::string status_report(const nlohmann::json& status, const ReportContext& context);

}  // namespace nvr::tools
