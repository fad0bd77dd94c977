// The kind of disk that a directory lies on. sysfs tells it of a device; a file system without a device of
// its own is asked for the devices below it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "daemon/options.h"

namespace nvr::daemon {

struct Device {
  bool rotational = false;
  bool known = false;            // somebody said so
  std::string file_system = {};  // such as "btrfs" or "fuse.mergerfs"; empty: the kernel has a device for it
  // The most that the kernel reads ahead at one bidding: the larger of read_ahead_kb and the largest request.
  std::uint64_t request_bytes = 128 << 10;
  std::string queue = {};  // its settings in /sys, such as "/sys/dev/block/8:1/../queue/"; empty: it has none
};

// Of the directory `fd`. Reads /sys and /proc, and not the disk itself; of a loop device the place of its
// image, and of an overlay those of its layers, to see what they lie on. Of several disks, all count as
// spinning if one is. `wanted` overrides what is said of rotation.
[[nodiscard]] Device describe_device(int fd, DeviceKind wanted);
[[nodiscard]] std::string_view to_string(const Device& device);
// What is wrong with the settings of a spinning disk, and the command that mends it; empty when they are
// right.
[[nodiscard]] std::string advice_for(const Device& device);
// A warning with the option that mends it: the kernel does not tell the kind of disk, or --reserve has no
// effect on a solid one. Empty: no warning.
[[nodiscard]] std::string doubts_about(const Device& device, std::uint32_t reserve_percent);

}  // namespace nvr::daemon
