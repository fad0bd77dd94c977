// What the streamer says of itself: /healthz and /metrics. Event-loop thread; pure.
#pragma once

#include <string>

#include "tools/streamer/service.h"

namespace nvr::streamer {

struct Page {
  unsigned status = 200;
  std::string type;
  std::string text;
};

// Of all disks, or of the one that is given. All: always 200, since a streamer is well as long as it answers,
// whatever its disks do. One: 503 with one that has not answered for a second.
[[nodiscard]] Page health_page(const Service& service, const Disk* disk);
// In Prometheus' text format.
[[nodiscard]] Page metrics_page(const Service& service);

}  // namespace nvr::streamer
