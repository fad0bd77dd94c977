#include "daemon/drop_behind.h"

#include <errno.h>
#include <fcntl.h>

#include <utility>

#include "daemon/page_cache.h"
#include "daemon/page_table.h"

namespace nvr::daemon {
namespace {

#ifndef RWF_DONTCACHE
constexpr int RWF_DONTCACHE = 0x80;  // Linux 6.14
#endif

std::uint64_t round_down(std::uint64_t offset) {
  return offset / page_bytes() * page_bytes();
}
std::uint64_t round_up(std::uint64_t offset) {
  return round_down(offset + page_bytes() - 1);
}

// [begin, end): whole pages.
void forget(const SampleFile& file, std::uint64_t begin, std::uint64_t end) {
  posix_fadvise(file.fd.get(), static_cast<off_t>(begin), static_cast<off_t>(end - begin),
                POSIX_FADV_DONTNEED);
}

}  // namespace

int DropBehind::flags() const {
  return has_dontcache_ ? RWF_DONTCACHE : 0;
}

void DropBehind::before(Operation& operation) const {
  operation.drops = false;
  if (has_dontcache_) return;
  // No readahead: it would bring in what is not this read's, and nobody would drop it.
  posix_fadvise(operation.file->fd.get(), 0, 0, POSIX_FADV_RANDOM);
  // The pages at both ends may be those of the reads beside it.
  const std::uint64_t begin = round_up(operation.position());
  const std::uint64_t end = round_down(operation.offset + operation.length);
  operation.drops =
      begin >= end ||
      presence_of(operation.file->fd.get(), begin, end - begin).value_or(Presence::kNone) == Presence::kNone;
}

void DropBehind::after(Operation& operation) const {
  if (!std::exchange(operation.drops, false)) return;
  forget(*operation.file, round_down(operation.offset), round_up(operation.offset + operation.length));
}

void give_back(const SampleFile& file, std::uint64_t begin, std::uint64_t end) {
  begin = round_up(begin);
  end = round_down(end);
  if (begin < end) forget(file, begin, end);
}

}  // namespace nvr::daemon
