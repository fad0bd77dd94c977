#include "daemon/device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "daemon/disk_model.h"
#include "daemon/mount_info.h"
#include "daemon/sample_dir.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {
namespace {

std::optional<std::uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

// Images that lie in images that lie in images; and layers likewise.
constexpr int kMostLoops = 4;

// What the image of a loop device lies on; nothing for any other device.
std::optional<std::uint64_t> behind_loop(const std::string& base) {
  std::ifstream file(base + "/loop/backing_file");
  std::string image;
  struct stat st = {};
  if (!std::getline(file, image) || stat(image.c_str(), &st) != 0) return std::nullopt;
  return st.st_dev;
}

Device read_settings(std::uint64_t device, int loops) {
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
    found.queue = queue;
    break;
  }
  // Kernels differ in what they say of a loop device.
  if (const auto image_on = loops > 0 ? behind_loop(base) : std::nullopt)
    if (const Device behind = read_settings(*image_on, loops - 1); behind.known)
      found.rotational = behind.rotational;
  return found;
}

// One file system on several disks.
Device combine(const std::vector<Device>& disks) {
  Device all;
  if (disks.empty() || !std::ranges::all_of(disks, &Device::known)) return all;
  all = disks.front();
  for (const Device& disk : disks) {
    all.rotational |= disk.rotational;
    if (disk.request_bytes >= all.request_bytes) continue;
    all.request_bytes = disk.request_bytes;
    all.queue = disk.queue;
  }
  return all;
}

// The device nodes need not be there: in a service's own /dev they are not.
std::optional<std::uint64_t> number_of_block_device(const std::string& directory) {
  std::ifstream file(directory + "/dev");
  unsigned major = 0;
  unsigned minor = 0;
  char colon = 0;
  return file >> major >> colon >> minor ? std::optional(makedev(major, minor)) : std::nullopt;
}

Device describe_btrfs(int fd) {
  btrfs_ioctl_fs_info_args info = {};
  if (ioctl(fd, BTRFS_IOC_FS_INFO, &info) != 0) return {};
  std::string id;
  for (std::size_t i = 0; i < std::size(info.fsid); ++i)
    id += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", info.fsid[i]);
  const std::string base = "/sys/fs/btrfs/" + id;
  std::vector<Device> disks;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(base + "/devices", error)) {
    const auto number = number_of_block_device(entry.path());
    disks.push_back(number ? read_settings(*number, kMostLoops) : Device());
  }
  Device all = combine(disks);
  if (const auto kib = read_number(base + "/bdi/read_ahead_kb")) {
    all.request_bytes = *kib << 10;
    all.queue = base + "/bdi/";
  }
  return all;
}

// By its number, or where the kernel does not tell that, by the device.
std::optional<MountInfo> mount_of(const DirectoryIdentity& directory) {
  const std::string device = fmt::format("{}:{}", major(directory.device), minor(directory.device));
  std::ifstream file("/proc/self/mountinfo");
  std::optional<MountInfo> found;
  for (std::string line; std::getline(file, line);) {
    MountInfo mount = parse_mount_info(line);
    if (directory.mount != 0 ? mount.id == directory.mount : mount.device == device) found = std::move(mount);
  }
  return found;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

Device describe(int fd, int levels);

// The layers are named as they were for the one that mounted it. Where they are out of sight, nothing is
// known.
Device describe_overlay(const MountInfo& mount, int levels) {
  std::vector<Device> disks;
  for (const std::string& option : split(mount.options, ',')) {
    const auto equals = option.find('=');
    const std::string name = option.substr(0, equals);
    if (equals == std::string::npos || (name != "upperdir" && name != "lowerdir" && name != "lowerdir+"))
      continue;
    for (const std::string& layer : split(option.substr(equals + 1), ':')) {
      const shm::UniqueFd fd(open(layer.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      disks.push_back(fd ? describe(fd.get(), levels - 1) : Device());
    }
  }
  return combine(disks);
}

// Its sources are block devices, as "/dev/sda:/dev/sdb" of bcachefs.
Device describe_sources(const MountInfo& mount) {
  std::vector<Device> disks;
  for (const std::string& source : split(mount.source, ':')) {
    if (!source.starts_with("/dev/")) return {};
    const auto number = number_of_block_device("/sys/class/block/" + source.substr(source.rfind('/') + 1));
    disks.push_back(number ? read_settings(*number, kMostLoops) : Device());
  }
  return combine(disks);
}

Device describe(int fd, int levels) {
  const auto directory = DirectoryIdentity::of(fd, "");
  if (!directory) return {};
  Device found = read_settings(directory->device, kMostLoops);
  if (found.known) return found;
  const std::string bdi =
      fmt::format("/sys/class/bdi/{}:{}/", major(directory->device), minor(directory->device));
  if (const auto kib = read_number(bdi + "read_ahead_kb")) {
    found.request_bytes = *kib << 10;
    found.queue = bdi;
  }
  struct statfs fs = {};
  const auto mount = mount_of(*directory);
  if (fstatfs(fd, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC) {
    found = describe_btrfs(fd);
  } else if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC) {
    found.known = true;
    found.rotational = false;
  } else if (mount) {
    const Device below =
        mount->type == "overlay" && levels > 0 ? describe_overlay(*mount, levels) : describe_sources(*mount);
    if (below.known) found = below;
  }
  found.file_system = mount ? mount->type : "an unknown file system";
  return found;
}

}  // namespace

Device describe_device(int fd, DeviceKind wanted) {
  Device found = describe(fd, kMostLoops);
  // Visits cost a solid disk little; their lack costs a spinning one most of its bandwidth.
  found.rotational |= !found.known;
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

std::string doubts_about(const Device& device, std::uint32_t reserve_percent) {
  if (!device.known)
    return fmt::format(
        "the kernel does not tell what disk{} lies on: it is taken for a spinning one; "
        "--device-kind solid, if it is not",
        device.file_system.empty() ? "" : " " + device.file_system);
  if (reserve_percent > 0 && !device.rotational)
    return "--reserve has no effect, since the disk is taken for a solid one: --device-kind rotational, if "
           "it spins";
  return {};
}

std::string advice_for(const Device& device) {
  if (!device.rotational || device.queue.empty() || device.request_bytes >= kSegmentBytes) return {};
  return "the kernel cuts each read of this disk into pieces of " +
         std::to_string(device.request_bytes >> 10) +
         " KiB, between which the head may be sent elsewhere: echo 1024 > " + device.queue + "read_ahead_kb";
}

}  // namespace nvr::daemon
