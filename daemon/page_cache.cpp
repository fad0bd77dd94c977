#include "daemon/page_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "daemon/page_table.h"
#include "daemon/sigbus_guard.h"
#include "shm/clock.h"

namespace nvr::daemon {
namespace {

#ifndef SYS_cachestat
constexpr long SYS_cachestat = 451;
#endif
// How far ahead one look at what is in memory goes at most (one call per 128 chunks of a hot file), and for
// how long its answer is relied on. What is reclaimed in between costs a page fault, no more.
constexpr std::uint64_t kMostResidencyWindow = 8 << 20;
constexpr std::uint64_t kMostPagesLooked = kMostResidencyWindow / kLeastPageBytes;
static_assert(kMostPagesLooked <= PageTable::kMostPages);
constexpr std::uint64_t kResidencyTrustNs = 10 * shm::kMillisecond;
// What a copy from a map shows at a time: a reader that looks for it finds it sooner than it gives up and
// sleeps, and while it is in the processor's cache.
constexpr std::uint32_t kPieceBytes = 2 * shm::kSlotBytes;

std::uint64_t page_of(std::uint64_t offset) {
  return offset / page_bytes() * page_bytes();
}

// How many of the `count` pages of the map from `begin` on are in the page cache, one after the other.
std::size_t count_in_memory(const std::byte* begin, std::size_t count) {
  std::array<unsigned char, kMostPagesLooked> pages;
  if (mincore(const_cast<std::byte*>(begin), count * page_bytes(), pages.data()) != 0) return 0;
  const auto* const missing =
      std::find_if(pages.data(), pages.data() + count, [](unsigned char page) { return (page & 1) == 0; });
  return static_cast<std::size_t>(missing - pages.data());
}

// The first offset in [offset, end) that a copy from the map would have to wait for, as far as
// kMostResidencyWindow.
std::uint64_t first_missing(const SampleFile& file, std::uint64_t offset, std::uint64_t end) {
  const std::uint64_t from = page_of(offset);
  const std::uint64_t to = std::min(end, from + kMostResidencyWindow);
  const std::byte* const begin = file.map->data() + from;
  const std::size_t count = (to - from + page_bytes() - 1) / page_bytes();
  // Of files of others mincore() says that all is in memory.
  const std::size_t found = file.residency_known ? count_in_memory(begin, count)
                                                 : PageTable::of_this_process().count_present(begin, count);
  return std::clamp(from + found * page_bytes(), offset, to);
}

// How far from `offset` on the file is in memory, as far as has been looked: at least to `end`.
std::uint64_t resident_end(SampleFile& file, std::uint64_t offset, std::uint64_t end) {
  const std::uint64_t now = shm::now_ns();
  const bool is_recent = now - file.resident_at_ns <= kResidencyTrustNs;
  if (!is_recent || offset < file.resident_from || end > file.resident_until) {
    // Twice as far as the last time if that was used up before it was too old to be relied on, which a stream
    // among hundreds never does; or else no further than it must.
    const bool was_used_up = is_recent && offset == file.resident_until;
    const std::uint64_t ahead = was_used_up ? 2 * (file.resident_until - file.resident_from) : 0;
    file.resident_from = offset;
    file.resident_until = first_missing(file, offset, std::min(file.end, std::max(end, offset + ahead)));
    file.resident_at_ns = now;
  }
  return file.resident_until;
}

// After a copy of what lies before `end`: has the file reached that far all the while? The kernel changes a
// file's size, then takes the pages beyond it out of every map, and then fills what is left of its last page
// with zeroes. So whoever has copied such zeroes finds the page after `end` gone. False also where that page
// is not known to be in memory.
bool reaches_beyond(const SampleFile& file, std::uint64_t end) {
  const std::uint64_t next_page = page_of(end + page_bytes() - 1);
  if (next_page >= file.resident_until) return false;
  const std::span<const std::byte> map(file.map->data(), file.map->size());
  std::byte byte{};
  // The copy's loads come before this one. (ThreadSanitizer's compiler refuses atomic_thread_fence().)
  __sync_synchronize();
  return guarded_copy(&byte, map.subspan(next_page, 1), map) == 1;
}

// True also where nobody can tell.
bool begins_in_memory(const SampleFile& file) {
  constexpr std::uint64_t kBeginning = 2 << 20;
  const std::uint64_t length = std::min(file.end - file.begin, kBeginning);
  return presence_of(file.fd.get(), file.begin, length).value_or(Presence::kAll) == Presence::kAll;
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
  const std::uint64_t all = (offset + length + page_bytes() - 1) / page_bytes() - offset / page_bytes();
  return pages.cached >= all ? Presence::kAll : Presence::kSome;
}

void read_as_told(SampleFile& file) {
  if (!std::exchange(file.reads_as_told, true)) posix_fadvise(file.fd.get(), 0, 0, POSIX_FADV_RANDOM);
}

std::uint32_t block_of(SampleFile& file) {
  constexpr std::uint32_t kSector = 512;  // of any disk, if that; where a FUSE program reads from is unknown
  if (file.dio_align > 0) return file.dio_align;
  if (file.has_pages) {
    const auto page = shm::Mapping::create(file.fd.get(), 0, 1, shm::Access::kReadOnly, "a recording");
    file.has_pages = page || page.error().sys_errno != ENODEV;
  }
  return file.has_pages ? 0 : kSector;
}

PageCache::PageCache() {
  install_sigbus_handler();
}

std::int64_t PageCache::read(Operation& operation) {
  SampleFile& file = *operation.file;
  if (operation.only_memory) read_as_told(file);  // even a read that never waits has the kernel read ahead
  if (is_hot(file))
    if (const std::int64_t result = read_hot(operation); result != -EAGAIN) return result;
  if (file.reads_nowait) {
    const std::int64_t result = read_nowait(operation);
    if (result > 0 || result == -EAGAIN) learn(operation, result);
    if (result != -EOPNOTSUPP) return result;
    file.reads_nowait = false;
  }
  if (!map(file)) return -EAGAIN;
  return read_mapped(operation, resident_end(file, operation.position(), operation.position() + 1));
}

// Only who finds the recording in memory, and reads much of it, counts as one who reads it again.
bool PageCache::is_hot(SampleFile& file) {
  if (!std::exchange(file.is_counted, true) && file.cache == CachePolicy::kNormal &&
      file.end - file.begin >= FileMaps::kLeastBytes && begins_in_memory(file))
    file.map = maps_.count_reader(file, shm::now_ns());
  return file.map != nullptr;
}

std::int64_t PageCache::read_hot(Operation& operation) {
  const std::uint64_t end = operation.offset + operation.length;
  SampleFile& file = *operation.file;
  if (file.map == nullptr) return -EAGAIN;  // another read of the file was missing something meanwhile
  if (resident_end(file, operation.position(), end) >= end) return read_mapped(operation, end);
  // Pages that come from the disk now have no page-table entries yet, and to fill them costs more than a
  // read. Of a file of others only the read tells whether it came from the disk: learn().
  if (file.reads_nowait && file.residency_known) file.map = nullptr;
  return -EAGAIN;
}

void PageCache::learn(const Operation& operation, std::int64_t result) {
  SampleFile& file = *operation.file;
  if (file.map == nullptr || file.residency_known) return;
  if (result <= 0) return file.map.reset();
  const std::span<const std::byte> map(file.map->data(), file.map->size());
  const std::uint64_t end = operation.position() + static_cast<std::uint64_t>(result);
  std::byte byte{};
  for (std::uint64_t at = page_of(operation.position()); at < end; at += page_bytes())
    if (guarded_copy(&byte, map.subspan(at, 1), map) == 0) return;  // cut short meanwhile
}

std::int64_t PageCache::read_brought_in(Operation& operation, std::uint32_t length) {
  SampleFile& file = *operation.file;
  if (file.reads_nowait)
    if (const std::int64_t result = read_nowait(operation); result != -EAGAIN) return result;
  // Reclaimed at once, or there is no telling.
  if (!map(file)) return -EAGAIN;
  return read_mapped(operation, operation.position() + length);
}

// Look-up and copy in one system call, and no page of the file to be mapped and unmapped.
std::int64_t PageCache::read_nowait(Operation& operation, int flags) {
  std::array<iovec, kMaxReadSlots> parts;
  const std::uint32_t count = operation.parts_left(parts);
  const ssize_t result = preadv2(operation.file->fd.get(), parts.data(), static_cast<int>(count),
                                 static_cast<off_t>(operation.position()), RWF_NOWAIT | flags);
  return result < 0 ? -errno : result;
}

// Copies what lies before `end` of what is left of the read. That the file was not cut short is looked at
// after the copy: at its next page, which costs nothing, or at its size.
std::int64_t PageCache::read_mapped(Operation& operation, std::uint64_t end) {
  const SampleFile& file = *operation.file;
  const std::uint64_t begin = operation.position();
  end = std::min(end, operation.offset + operation.length);
  if (end <= begin) return -EAGAIN;
  const std::span<const std::byte> map(file.map->data(), file.map->size());
  std::uint64_t at = begin;
  while (at < end) {
    const std::span<std::byte> target = operation.target_of(at);
    const std::size_t length = std::min<std::uint64_t>(target.size(), end - at);
    const std::size_t copied = guarded_copy(target.data(), map.subspan(at, length), map);
    at += copied;
    if (copied < length) break;
    const auto in_read = static_cast<std::uint32_t>(at - operation.offset);
    if (in_read % kPieceBytes == 0 && at < end && reaches_beyond(file, at)) operation.on_copied(in_read);
  }
  if (at == end && reaches_beyond(file, end)) return static_cast<std::int64_t>(end - begin);
  const std::int64_t size = SampleDir::size_now(file);
  if (size < 0) return size;
  const auto valid_end = std::min(at, static_cast<std::uint64_t>(size));
  if (valid_end > begin) return static_cast<std::int64_t>(valid_end - begin);
  return static_cast<std::uint64_t>(size) <= begin ? 0 : -EIO;
}

// FUSE with direct_io cannot be mapped (ENODEV). Whatever the reason is, the file can be read without.
bool PageCache::map(SampleFile& file) {
  if (file.map == nullptr && file.has_pages) file.map = maps_.map(file, shm::now_ns()).value_or(nullptr);
  file.has_pages = file.map != nullptr;
  return file.has_pages;
}

}  // namespace nvr::daemon
