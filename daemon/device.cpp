#include "daemon/device.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace nvr::daemon {
namespace {

std::optional<std::uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

}  // namespace

Device describe_device(std::uint64_t device, DeviceKind wanted) {
  Device found;
  const std::string base =
      "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  // A partition has no queue of its own; its parent has.
  for (const std::string& queue : {base + "/queue/", base + "/../queue/"}) {
    const auto rotational = read_number(queue + "rotational");
    if (!rotational) continue;
    found.rotational = *rotational != 0;
    found.known = true;
    const std::uint64_t kib = std::max(read_number(queue + "read_ahead_kb").value_or(0),
                                       read_number(queue + "max_sectors_kb").value_or(0));
    if (kib > 0) found.request_bytes = kib << 10;
    break;
  }
  if (wanted != DeviceKind::kAuto) {
    found.rotational = wanted == DeviceKind::kRotational;
    found.known = true;
  }
  return found;
}

std::string_view to_string(const Device& device) {
  if (!device.known) return "unknown";
  return device.rotational ? "rotational" : "solid";
}

}  // namespace nvr::daemon
