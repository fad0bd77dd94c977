// Bar charts, as SVG, one beneath the other in one picture.
#pragma once

#include <string>
#include <vector>

#include "nvr/error.h"

namespace nvr::bench {

struct ChartGroup {
  std::string label;
  std::vector<double> values;  // one for each series; 0: none, no bar
};

struct Chart {
  std::string title;
  std::vector<std::string> series;
  std::vector<ChartGroup> groups;
  bool is_logarithmic = false;  // for what differs by powers of ten

  // Adds a value, and its series and group where they are new.
  void add(const std::string& group, const std::string& name, double value);
};

[[nodiscard]] Result<void> write_charts(const std::vector<Chart>& charts, const std::string& path);

}  // namespace nvr::bench
