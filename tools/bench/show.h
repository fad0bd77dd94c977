// What scenarios have found, for people and for scripts.
#pragma once

#include <span>
#include <string>

#include "tools/bench/scenario.h"

namespace nvr::bench {

// Table and targets, to stdout.
void print_findings(const Findings& findings);
// One list of all their rows.
[[nodiscard]] Result<void> write_json(std::span<const Findings> all, const std::string& path);
// One picture of all of them.
[[nodiscard]] Result<void> write_svg(std::span<const Findings> all, const std::string& path);

}  // namespace nvr::bench
