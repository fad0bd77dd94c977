#include "tools/slowdisk/extents.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <new>

#include "shm/unique_fd.h"

namespace nvr::slowdisk {
namespace {

constexpr std::size_t kExtentsAtOnce = 128;
// An extent whose place is not that of its bytes.
constexpr std::uint32_t kNowhere = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED;

std::uint64_t end_of(const fiemap_extent& extent) {
  return extent.fe_logical + extent.fe_length;
}

// Adds what lies in `wanted`; returns where in the file to go on, or wanted.end when all is there.
Result<std::uint64_t> map_some(int fd, const Range& wanted, std::vector<Range>& found) {
  // A fiemap and the extents behind it.
  alignas(fiemap) std::array<std::byte, sizeof(fiemap) + kExtentsAtOnce * sizeof(fiemap_extent)> memory = {};
  auto& query = *new (memory.data()) fiemap{};
  query.fm_start = wanted.begin;
  query.fm_length = wanted.end - wanted.begin;
  query.fm_flags = FIEMAP_FLAG_SYNC;
  query.fm_extent_count = kExtentsAtOnce;
  if (ioctl(fd, FS_IOC_FIEMAP, &query) != 0) return fail_errno(errno, "cannot ask where the file lies");
  for (std::uint32_t i = 0; i < query.fm_mapped_extents; ++i) {
    const fiemap_extent& extent = query.fm_extents[i];
    if ((extent.fe_flags & kNowhere) != 0) continue;
    const std::uint64_t begin = std::max<std::uint64_t>(extent.fe_logical, wanted.begin);
    const std::uint64_t end = std::min(end_of(extent), wanted.end);
    if (begin >= end) continue;
    const std::uint64_t shift = extent.fe_physical - extent.fe_logical;
    found.push_back({.begin = begin + shift, .end = end + shift});
  }
  if (query.fm_mapped_extents < kExtentsAtOnce) return wanted.end;
  return std::min(wanted.end, end_of(query.fm_extents[kExtentsAtOnce - 1]));
}

}  // namespace

Result<std::vector<Range>> extents_of(const std::string& path, const std::vector<Range>& wanted) {
  const shm::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail_errno(errno, "cannot open " + path);
  const std::vector<Range> everything = {{.begin = 0, .end = std::numeric_limits<std::int64_t>::max()}};
  std::vector<Range> found;
  for (Range rest : wanted.empty() ? everything : wanted) {
    while (rest.begin < rest.end) {
      const auto next = map_some(fd.get(), rest, found);
      if (!next) return tl::unexpected(next.error());
      rest.begin = *next;
    }
  }
  if (found.empty()) return fail(Code::kNotFound, path + " has no bytes of its own on the disk there");
  return found;
}

Result<Order> in_image(const Order& order, const std::string& mounted_at) {
  if (order.target.file.empty()) return order;
  if (order.verb == Verb::kTruncate)
    return fail(Code::kInvalidArgument, "in an image a file cannot be truncated: use truncate(1) on it");
  const bool is_absolute = order.target.file.front() == '/';
  const auto ranges =
      extents_of(is_absolute ? order.target.file : mounted_at + "/" + order.target.file, order.target.ranges);
  if (!ranges) return tl::unexpected(ranges.error());
  Order about_ranges = order;
  about_ranges.target.file.clear();
  about_ranges.target.ranges = *ranges;
  return about_ranges;
}

}  // namespace nvr::slowdisk
