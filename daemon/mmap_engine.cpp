#include "daemon/mmap_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "daemon/sigbus_guard.h"
#include "shm/clock.h"
#include "shm/mapping.h"

namespace nvr::daemon {
namespace {

constexpr std::uint64_t kPage = 4096;
// How far ahead one mincore() looks (512 pages, one call per 32 chunks of a hot file), and for how long its
// answer is relied on. What is reclaimed in between costs a page fault, no more.
constexpr std::uint64_t kResidencyWindow = 2 << 20;
constexpr std::uint64_t kResidencyTrustNs = 10 * shm::kMillisecond;
// How far ahead of a cold read the kernel is asked to read; renewed at half of it.
constexpr std::uint64_t kReadahead = 1 << 20;

constexpr std::uint64_t page_of(std::uint64_t offset) {
  return offset / kPage * kPage;
}

// The first offset in [offset, end) whose page is not in the page cache, as far as kResidencyWindow.
std::uint64_t first_missing(const SampleFile& file, std::uint64_t offset) {
  const std::uint64_t base = page_of(file.begin);  // file offset of the mapping's first page
  const std::uint64_t from = page_of(offset);
  const std::uint64_t to = std::min(file.end, from + kResidencyWindow);
  std::array<unsigned char, kResidencyWindow / kPage> pages;
  std::byte* const map = file.mapping.data() - (file.begin - base);
  if (mincore(map + (from - base), to - from, pages.data()) != 0) return offset;
  const auto count = (to - from + kPage - 1) / kPage;
  const auto* const missing =
      std::find_if(pages.data(), pages.data() + count, [](unsigned char page) { return (page & 1) == 0; });
  return std::min(to, from + static_cast<std::uint64_t>(missing - pages.data()) * kPage);
}

}  // namespace

Result<std::unique_ptr<MmapEngine>> MmapEngine::create(const SampleDir& directory, int wakeups) {
  shm::UniqueFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (!null) return fail_errno(errno, "cannot open /dev/null");
  install_sigbus_handler();
  return std::unique_ptr<MmapEngine>(new MmapEngine(directory, wakeups, std::move(null)));
}

std::size_t MmapEngine::reap(std::span<Completion> completions) {
  if (submitted_.empty() || completions.empty()) return 0;
  Operation& operation = *submitted_.front();
  submitted_.pop_front();
  completions[0] = {.operation = &operation,
                    .result = operation.kind == Operation::Kind::kOpen ? open(operation) : read(operation)};
  return 1;
}

void MmapEngine::wait(int timeout_ms) {
  pollfd entry = {.fd = wakeups_, .events = POLLIN, .revents = 0};
  poll(&entry, 1, timeout_ms);  // EINTR and errors: the caller looks again in any case
}

std::int64_t MmapEngine::open(Operation& operation) {
  operation.opened = std::make_unique<SampleFile>();
  return directory_->open_recording(operation.recording, *operation.opened);
}

std::int64_t MmapEngine::read(Operation& operation) {
  SampleFile& file = *operation.file;
  if (file.reads_nowait) {
    std::int64_t result = read_cached(operation);
    if (result == -EAGAIN) {  // not there yet
      const std::uint32_t left_in_slot = shm::kSlotBytes - operation.done % shm::kSlotBytes;
      result = bring_in(file, operation.offset + operation.done,
                        std::min(left_in_slot, operation.length - operation.done));
      if (result <= 0) return result;
      result = read_cached(operation);
    }
    if (result != -EOPNOTSUPP && result != -EAGAIN) return result;
    file.reads_nowait = result == -EAGAIN;  // EAGAIN: reclaimed at once; the mapping will do for this time
  }
  return read_mapped(operation);
}

// Copies what is in the page cache of what is left of the operation, in one system call that never waits for
// the disk. Look-up and copy in one, and no page of the file to be mapped and unmapped: 1.6 times the rate of
// mincore and memcpy (Linux 6.18, 4 KiB folios, 2 MiB of slots: 16.7 against 10.6 GB/s). -EAGAIN: the first
// page is not there; -EOPNOTSUPP: the file system cannot tell (FUSE).
std::int64_t MmapEngine::read_cached(const Operation& operation) {
  std::array<iovec, kReadSlots> parts;
  int count = 0;
  for (std::uint32_t position = operation.done; position < operation.length; ++count) {
    const std::uint32_t in_slot = position % shm::kSlotBytes;
    const std::uint32_t length = std::min(shm::kSlotBytes - in_slot, operation.length - position);
    parts[static_cast<std::size_t>(count)] = {
        .iov_base = operation.targets[position / shm::kSlotBytes] + in_slot, .iov_len = length};
    position += length;
  }
  const ssize_t result = preadv2(operation.file->fd.get(), parts.data(), count,
                                 static_cast<off_t>(operation.offset + operation.done), RWF_NOWAIT);
  return result < 0 ? -errno : result;
}

// The same through the mapping: copies as many chunks as are in the page cache, or the first one after
// waiting for it.
std::int64_t MmapEngine::read_mapped(Operation& operation) {
  SampleFile& file = *operation.file;
  if (file.mapping.size() == 0) {
    auto mapping = shm::Mapping::create(file.fd.get(), file.begin, file.end - file.begin,
                                        shm::Access::kReadOnly, "a recording");
    if (!mapping) return -mapping.error().sys_errno;
    file.mapping = std::move(*mapping);
  }
  std::uint32_t copied = 0;
  while (operation.done + copied < operation.length) {
    const std::uint32_t position = operation.done + copied;
    const std::uint64_t offset = operation.offset + position;
    const std::uint32_t in_slot = position % shm::kSlotBytes;
    std::uint32_t length = std::min(shm::kSlotBytes - in_slot, operation.length - position);

    if (!is_resident(file, offset, length)) {
      if (copied > 0) return copied;
      const std::int64_t there = bring_in(file, offset, length);
      if (there <= 0) return there;
      length = static_cast<std::uint32_t>(there);
    }
    std::byte* const target = operation.targets[position / shm::kSlotBytes] + in_slot;
    const std::int64_t result = copy(file, offset, std::span(target, length));
    if (result <= 0) return copied > 0 ? copied : result;
    copied += static_cast<std::uint32_t>(result);
    if (result < length) break;
  }
  return copied;
}

// Copies from the mapping. After a truncation the page that now holds the end of the file reads as zeroes
// behind that end. The page after the copied ones then faults, so touching it is the cheap proof that there
// was no truncation; at the end of the mapping fstat has to be. Bytes copied, 0 at the end of the file, -EIO.
std::int64_t MmapEngine::copy(const SampleFile& file, std::uint64_t offset, std::span<std::byte> target) {
  const std::span<const std::byte> map(file.mapping.data(), file.mapping.size());
  const std::uint64_t next_page = page_of(offset + target.size() + kPage - 1);
  const std::byte* const probe = next_page < file.end ? map.data() + (next_page - file.begin) : nullptr;
  const auto result =
      guarded_copy(target.data(), map.subspan(offset - file.begin, target.size()), probe, map);
  if (probe != nullptr && !result.probe_failed && result.copied == target.size())
    return static_cast<std::int64_t>(result.copied);

  struct stat st = {};
  if (fstat(file.fd.get(), &st) != 0) return -errno;
  const auto size = static_cast<std::uint64_t>(st.st_size);
  if (size <= offset) return 0;
  if (result.copied == 0) return -EIO;
  return static_cast<std::int64_t>(std::min<std::uint64_t>(result.copied, size - offset));
}

// Is [offset, offset + length) in the page cache?
bool MmapEngine::is_resident(SampleFile& file, std::uint64_t offset, std::uint32_t length) {
  if (!file.residency_known) return false;  // mincore() says yes to everything for files of others
  const std::uint64_t now = shm::now_ns();
  if (offset + length > file.resident_until || now - file.resident_at_ns > kResidencyTrustNs) {
    file.resident_until = first_missing(file, offset);
    file.resident_at_ns = now;
  }
  return offset + length <= file.resident_until;
}

// Waits until the pages of [offset, offset + length) have been read, without mmap_lock. Returns how many
// bytes from `offset` on are there, 0 at the end of the file, or a negative errno.
std::int64_t MmapEngine::bring_in(SampleFile& file, std::uint64_t offset, std::uint32_t length) {
  if (offset + kReadahead / 2 >= file.advised_until) {
    const std::uint64_t from = std::max(offset, file.advised_until);
    file.advised_until = std::min(file.end, offset + kReadahead);
    // Advice only: what it cannot do, sendfile will wait for.
    if (from < file.advised_until)
      posix_fadvise(file.fd.get(), static_cast<off_t>(from), static_cast<off_t>(file.advised_until - from),
                    POSIX_FADV_WILLNEED);
  }
  auto position = static_cast<off_t>(offset);
  ssize_t sent = 0;
  do sent = sendfile(null_.get(), file.fd.get(), &position, length);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

}  // namespace nvr::daemon
