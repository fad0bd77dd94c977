#include "daemon/file_maps.h"

#include <sys/mman.h>

#include <algorithm>

#include "daemon/limits.h"
#include "daemon/sample_dir.h"

namespace nvr::daemon {
namespace {

constexpr int kSweepMs = 500;

}  // namespace

std::shared_ptr<const shm::Mapping> FileMaps::count_reader(const SampleFile& file, std::uint64_t now_ns) {
  let_go_of_idle(now_ns);
  if (++entry_of(file, now_ns).readers < kReadersBeforeMap) return nullptr;
  return map(file, now_ns).value_or(nullptr);
}

Result<std::shared_ptr<const shm::Mapping>> FileMaps::map(const SampleFile& file, std::uint64_t now_ns) {
  Entry& entry = entry_of(file, now_ns);
  if (entry.map == nullptr || entry.map->size() < file.end) {  // mapped before it grew
    auto mapping = shm::Mapping::create(file.fd.get(), 0, file.size, shm::Access::kReadOnly, "a recording");
    if (!mapping) return tl::unexpected(mapping.error());
    if (auto left = check_memory_left(); !left) return tl::unexpected(left.error());
    madvise(mapping->data(), mapping->size(),
            MADV_RANDOM);  // a fault brings in its page, and nobody waits for more
    entry.map = std::make_shared<const shm::Mapping>(std::move(*mapping));
  }
  return entry.map;
}

int FileMaps::let_go_of_idle(std::uint64_t now_ns) {
  std::erase_if(entries_, [now_ns](Entry& entry) {
    if (entry.map.use_count() > 1) entry.used_ns = now_ns;
    return now_ns - entry.used_ns > kLingerNs;
  });
  return entries_.empty() ? -1 : kSweepMs;
}

FileMaps::Identity FileMaps::identity_of(const SampleFile& file) {
  return {.device = file.device,
          .inode = file.inode,
          .birth_ns = file.birth_ns,
          .mtime_ns = file.birth_ns == 0 ? file.mtime_ns : 0};
}

FileMaps::Entry& FileMaps::entry_of(const SampleFile& file, std::uint64_t now_ns) {
  const Identity identity = identity_of(file);
  auto found = std::find_if(entries_.begin(), entries_.end(),
                            [&](const Entry& entry) { return entry.identity == identity; });
  if (found == entries_.end()) {
    if (entries_.size() == kMaxFiles)
      entries_.erase(std::min_element(entries_.begin(), entries_.end(),
                                      [](const Entry& a, const Entry& b) { return a.used_ns < b.used_ns; }));
    found = entries_.insert(entries_.end(), Entry());
    found->identity = identity;
  }
  found->used_ns = now_ns;
  return *found;
}

}  // namespace nvr::daemon
