// A line of /proc/PID/mountinfo.
#pragma once

#include <cstdint>
#include <string>

namespace nvr::daemon {

struct MountInfo {
  std::uint64_t id = 0;  // unique among the mounts of a namespace
  std::string device;    // of its files: "8:1"
  std::string root;      // the part of the file system that is mounted
  std::string mount_point;
  std::string type;  // such as "ext4"
  std::string source;
  std::string options;  // the file system's own
};

// Fields that the line does not have are empty. Spaces and the like, which it writes as "\\040", are
// themselves.
[[nodiscard]] MountInfo parse_mount_info(const std::string& line);

}  // namespace nvr::daemon
