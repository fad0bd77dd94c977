// What `nvr-readerctl top` shows: how the disk is, what flows in all, and the streams. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace nvr::tools {

// One look at the daemon.
struct TopSample {
  std::int64_t time_s = 0;  // wall clock
  nlohmann::json status;
  nlohmann::json streams;  // the answer; each stream with a rate and a process
  double bytes_per_s = 0;  // in all
  std::string trouble;     // why the figures are old; empty if they are not
};

// Where there are bounds lines are cut; without, nothing is, and there are no colours.
struct TopBounds {
  std::size_t columns = 0;
  std::size_t rows = 0;
};

// Lines, each ended by '\n' but the last.
[[nodiscard]] std::string top_screen(const TopSample& sample, std::optional<TopBounds> bounds);

}  // namespace nvr::tools
