#include "daemon/device.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include "daemon/disk_model.h"

namespace nvr::daemon {
namespace {

std::optional<std::uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

// Images that lie in images that lie in images.
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

}  // namespace

Device describe_device(std::uint64_t device, DeviceKind wanted) {
  Device found = read_settings(device, kMostLoops);
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

std::string advice_for(const Device& device) {
  if (!device.rotational || device.queue.empty() || device.request_bytes >= kSegmentBytes) return {};
  return "the kernel cuts each read of this disk into pieces of " +
         std::to_string(device.request_bytes >> 10) +
         " KiB, between which the head may be sent elsewhere: echo 1024 > " + device.queue + "read_ahead_kb";
}

}  // namespace nvr::daemon
