// How a spinning disk is shared: who is visited next, what that costs, and how much may be brought in ahead.
// Pure; disk thread only.
#pragma once

#include <algorithm>
#include <cstdint>

#include "daemon/disk_model.h"
#include "daemon/visits.h"

namespace nvr::daemon {

struct VisitPlan {
  Visits visits;
  // Does the first segment of a new or sought stream step in between two of a visit? Only not to measure.
  bool new_streams_first = true;
  DiskModel model = {};
  // Most that all streams together may have brought in and not read yet; and what they have now.
  std::uint64_t most_ahead_bytes = kDefaultMostAheadBytes;
  std::uint64_t ahead_bytes = 0;

  static constexpr std::uint64_t kDefaultMostAheadBytes = 512u << 20;

  // One stream may have no more than this ahead when it wants another visit; so never more than a visit and
  // this.
  [[nodiscard]] std::uint64_t low_water_bytes() const {
    return std::max(model.visit_bytes() / 2, 3 * kSegmentBytes);
  }
  // A segment at least: with many streams the bound gives way before anybody starves.
  [[nodiscard]] std::uint64_t visit_bytes() const {
    const std::uint64_t left = most_ahead_bytes - std::min(ahead_bytes, most_ahead_bytes);
    return std::max(std::min(model.visit_bytes(), left / 2), kSegmentBytes);
  }
};

}  // namespace nvr::daemon
