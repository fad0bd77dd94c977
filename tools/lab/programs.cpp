#include "tools/lab/programs.h"

#include <unistd.h>

#include "tools/lab/image_disk.h"

namespace nvr::lab {

std::string path_of_daemon() {
  return NVR_LAB_READERD;
}
std::string path_of_cat() {
  return NVR_LAB_CAT;
}
std::string path_of_ctl() {
  return NVR_LAB_READERCTL;
}
std::string path_of_slowdisk() {
  return NVR_LAB_SLOWDISK;
}
std::string source_directory() {
  return NVR_LAB_SOURCE;
}

std::optional<std::string> ImageDisk::missing() {
  if (path_of_slowdisk().empty()) return "nvr-slowdisk was not built: libfuse3-dev is missing";
  if (geteuid() != 0) return "mounting and loop devices need root";
  if (access("/dev/fuse", R_OK | W_OK) != 0) return "no /dev/fuse on this machine, or no right to use it";
  if (access("/dev/loop-control", R_OK | W_OK) != 0)
    return "no loop devices on this machine, or no right to them";
  return std::nullopt;
}

}  // namespace nvr::lab
