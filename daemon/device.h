// What kind of device a directory lies on, by sysfs.
#pragma once

#include <cstdint>
#include <string_view>

#include "daemon/options.h"

namespace nvr::daemon {

struct Device {
  bool rotational = false;
  bool known = false;  // sysfs had an answer; loop and network file systems often give none
  // The most that the kernel reads ahead at one bidding: the larger of read_ahead_kb and the largest request.
  std::uint64_t request_bytes = 128 << 10;
};

// Reads /sys only, never the disk itself. `wanted` overrides.
[[nodiscard]] Device describe_device(std::uint64_t device, DeviceKind wanted);
[[nodiscard]] std::string_view to_string(const Device& device);

}  // namespace nvr::daemon
