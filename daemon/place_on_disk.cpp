#include "daemon/place_on_disk.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <array>

namespace nvr::daemon {
namespace {

// Looks up the extent that `offset` lies in.
void find_extent(SampleFile& file, std::uint64_t offset) {
  // A request and room for one extent behind it.
  alignas(fiemap) std::array<char, sizeof(fiemap) + sizeof(fiemap_extent)> memory = {};
  auto& request = *reinterpret_cast<fiemap*>(memory.data());
  request.fm_start = offset;
  request.fm_length = file.size - offset;
  request.fm_extent_count = 1;
  file.extent_length = 0;
  if (ioctl(file.fd.get(), FS_IOC_FIEMAP, &request) != 0 || request.fm_mapped_extents != 1) return;
  const fiemap_extent& extent = request.fm_extents[0];
  if ((extent.fe_flags & FIEMAP_EXTENT_UNKNOWN) != 0) return;
  file.extent_offset = extent.fe_logical;
  file.extent_place = extent.fe_physical;
  file.extent_length = extent.fe_length;
}

}  // namespace

std::uint64_t place_on_disk(SampleFile& file, std::uint64_t recording, std::uint64_t offset) {
  const auto is_known = [&] {
    return offset >= file.extent_offset && offset - file.extent_offset < file.extent_length;
  };
  if (file.has_places && file.extents_known && !is_known()) {
    find_extent(file, offset);
    file.has_places = is_known();
  }
  return is_known() ? file.extent_place + (offset - file.extent_offset) : recording;
}

}  // namespace nvr::daemon
