// The daemon's stall log for a person: which ranges of which recordings are suspect, and what happened last.
// Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tools/ctl/stream_table.h"

namespace nvr::tools {

[[nodiscard]] std::string stall_report(const nlohmann::json& log, const ProcessNames& process_of);

}  // namespace nvr::tools
