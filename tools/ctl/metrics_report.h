// The daemon's status as metrics in Prometheus' text form, for scripts and textfile collectors. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nvr::tools {

[[nodiscard]] std::string metrics_report(const nlohmann::json& status);

}  // namespace nvr::tools
