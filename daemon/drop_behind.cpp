#include "daemon/drop_behind.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace nvr::daemon {
namespace {

#ifndef RWF_DONTCACHE
constexpr int RWF_DONTCACHE = 0x80;  // Linux 6.14
#endif
#ifndef SYS_cachestat
constexpr long SYS_cachestat = 451;
#endif
constexpr std::uint64_t kPage = 4096;

constexpr std::uint64_t round_down(std::uint64_t offset) {
  return offset / kPage * kPage;
}
constexpr std::uint64_t round_up(std::uint64_t offset) {
  return round_down(offset + kPage - 1);
}

}  // namespace

std::optional<Presence> presence_of(int fd, std::uint64_t offset, std::uint64_t length) {
  struct {
    std::uint64_t offset, length;
  } range = {offset, length};
  struct {
    std::uint64_t cached, dirty, writeback, evicted, recently_evicted;
  } pages = {};
  if (syscall(SYS_cachestat, fd, &range, &pages, 0) != 0) return std::nullopt;
  if (pages.cached == 0) return Presence::kNone;
  const std::uint64_t all = (offset + length + kPage - 1) / kPage - offset / kPage;
  return pages.cached >= all ? Presence::kAll : Presence::kSome;
}

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
  const std::uint64_t begin = round_down(operation.offset);
  const std::uint64_t end = round_up(operation.offset + operation.length);
  posix_fadvise(operation.file->fd.get(), static_cast<off_t>(begin), static_cast<off_t>(end - begin),
                POSIX_FADV_DONTNEED);
}

}  // namespace nvr::daemon
