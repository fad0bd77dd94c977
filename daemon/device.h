// What kind of device a directory lies on, by sysfs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "daemon/options.h"

namespace nvr::daemon {

struct Device {
  bool rotational = false;
  bool known = false;  // sysfs had an answer; loop and network file systems often give none
  // The most that the kernel reads ahead at one bidding: the larger of read_ahead_kb and the largest request.
  std::uint64_t request_bytes = 128 << 10;
  std::string queue;  // its settings in /sys, such as "/sys/dev/block/8:1/../queue/"; empty: it has none
};

// Reads /sys, and not the disk itself; of a loop device the place of its image, to see what that lies on.
// `wanted` overrides what is said of rotation.
[[nodiscard]] Device describe_device(std::uint64_t device, DeviceKind wanted);
[[nodiscard]] std::string_view to_string(const Device& device);
// What is wrong with the settings of a spinning disk, and the command that mends it; empty when they are
// right.
[[nodiscard]] std::string advice_for(const Device& device);

}  // namespace nvr::daemon
