#include "daemon/device.h"

#include <sys/sysmacros.h>

#include <fstream>
#include <string>

namespace nvr::daemon {

Device describe_device(std::uint64_t device, DeviceKind wanted) {
  if (wanted != DeviceKind::kAuto) return {.rotational = wanted == DeviceKind::kRotational, .known = true};
  const std::string base =
      "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  // A partition has no queue of its own; its parent has.
  for (const char* const queue : {"/queue/rotational", "/../queue/rotational"}) {
    std::ifstream file(base + queue);
    if (int rotational = 0; file >> rotational) return {.rotational = rotational != 0, .known = true};
  }
  return {};
}

std::string_view to_string(const Device& device) {
  if (!device.known) return "unknown";
  return device.rotational ? "rotational" : "solid";
}

}  // namespace nvr::daemon
