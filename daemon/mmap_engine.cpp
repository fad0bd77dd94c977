#include "daemon/mmap_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace nvr::daemon {
namespace {

// How far ahead of a cold read the kernel is asked to read; renewed at half of it.
constexpr std::uint64_t kReadahead = 1 << 20;

// Reads the rest of the operation in one call, and waits for it.
std::int64_t read_waiting(const Operation& operation, int flags) {
  std::array<iovec, kMaxReadSlots> parts;
  const auto count = static_cast<int>(operation.parts_left(parts));
  const ssize_t result =
      preadv2(operation.file->fd.get(), parts.data(), count, static_cast<off_t>(operation.position()), flags);
  return result < 0 ? -errno : result;
}

}  // namespace

Result<std::unique_ptr<MmapEngine>> MmapEngine::create(const SampleDir& directory,
                                                       std::uint64_t request_bytes) {
  shm::UniqueFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (!null) return fail_errno(errno, "cannot open /dev/null");
  return std::unique_ptr<MmapEngine>(new MmapEngine(directory, request_bytes, std::move(null)));
}

void MmapEngine::submit(Operation& operation) {
  if (operation.kind != Operation::Kind::kPrefetch) return submitted_.push_back(&operation);
  read_as_told(*operation.file);
  advise(*operation.file, operation.position(), operation.offset + operation.length);
  coming_.push_back(&operation);
}

std::size_t MmapEngine::reap(std::span<Completion> completions) {
  OperationQueue& queue = submitted_.empty() || has_come() ? coming_ : submitted_;
  if (queue.empty() || completions.empty()) return 0;
  Operation& operation = *queue.front();
  queue.pop_front();
  completions[0] = {.operation = &operation, .result = perform(operation)};
  return 1;
}

// Is the oldest prefetch there? Then the next one is due, or the disk would wait for all that is in memory to
// be copied first.
bool MmapEngine::has_come() const {
  if (coming_.empty()) return false;
  const Operation& oldest = *coming_.front();
  std::byte byte{};
  const iovec last = {.iov_base = &byte, .iov_len = 1};
  const auto at = static_cast<off_t>(oldest.offset + oldest.length - 1);
  return preadv2(oldest.file->fd.get(), &last, 1, at, RWF_NOWAIT) == 1;
}

std::int64_t MmapEngine::perform(Operation& operation) {
  switch (operation.kind) {
    case Operation::Kind::kOpen:
      return open(operation);
    case Operation::Kind::kPrefetch:
      return prefetch(operation);
    case Operation::Kind::kRead:
      break;
  }
  return operation.only_memory ? cache_.read(operation) : read(operation);
}

// Whatever completes does so in reap().
int MmapEngine::wait(int timeout_ms) {
  closing_.close_all();
  const int rest_ms = cache_.rest();
  if (rest_ms < 0) return timeout_ms;
  return timeout_ms < 0 ? rest_ms : std::min(timeout_ms, rest_ms);
}

std::int64_t MmapEngine::open(Operation& operation) {
  operation.opened = std::make_unique<SampleFile>();
  operation.opened->cache = operation.cache;
  return directory_->open_recording(operation.recording, *operation.opened);
}

std::int64_t MmapEngine::read(Operation& operation) {
  const SampleFile& file = *operation.file;
  if (file.cache == CachePolicy::kDrop) return read_dropping(operation);
  if (file.has_pages) {
    const std::int64_t result = read_pages(operation);
    if (file.has_pages) return result;  // or else that has just turned out, and nothing was read
  }
  operation.asks_disk = true;
  return read_waiting(operation, 0);
}

std::int64_t MmapEngine::read_pages(Operation& operation) {
  const std::int64_t result = cache_.read(operation);
  if (result != -EAGAIN || !operation.file->has_pages) return result;
  operation.asks_disk = true;
  const std::uint32_t left_in_slot = shm::kSlotBytes - operation.done % shm::kSlotBytes;
  const std::int64_t there = bring_in(*operation.file, operation.position(),
                                      std::min(left_in_slot, operation.length - operation.done));
  return there <= 0 ? there : cache_.read_brought_in(operation, static_cast<std::uint32_t>(there));
}

// Nothing is brought in ahead of the copy: the read waits for its pages itself, and they go after it.
std::int64_t MmapEngine::read_dropping(Operation& operation) {
  operation.asks_disk = true;  // as far as can be told
  drop_behind_.before(operation);
  const std::int64_t result = read_waiting(operation, drop_behind_.flags());
  if (result >= 0) drop_behind_.after(operation);
  if (result != -EOPNOTSUPP || drop_behind_.flags() == 0) return result;
  drop_behind_.set_unsupported();
  return read_dropping(operation);
}

// Waits until the pages of [offset, offset + length) have been read, without mmap_lock. Returns how many
// bytes from `offset` on are there, 0 at the end of the file, or a negative errno.
std::int64_t MmapEngine::bring_in(SampleFile& file, std::uint64_t offset, std::uint32_t length) {
  if (offset + kReadahead / 2 >= file.advised_until) {
    const std::uint64_t from = std::max(offset, file.advised_until);
    file.advised_until = std::min(file.end, offset + kReadahead);
    advise(file, from, file.advised_until);
  }
  return wait_for(file, offset, length);
}

std::int64_t MmapEngine::prefetch(Operation& operation) {
  const std::int64_t result =
      wait_for(*operation.file, operation.position(), operation.length - operation.done);
  if (result > 0) operation.file->extents_known = true;
  return result;
}

// The disk shall begin with [from, to). Advice only: what it cannot do, wait_for() will.
void MmapEngine::advise(const SampleFile& file, std::uint64_t from, std::uint64_t to) const {
  for (; from < to; from += request_bytes_)
    posix_fadvise(file.fd.get(), static_cast<off_t>(from),
                  static_cast<off_t>(std::min(request_bytes_, to - from)), POSIX_FADV_WILLNEED);
}

std::int64_t MmapEngine::wait_for(SampleFile& file, std::uint64_t offset, std::uint32_t length) {
  auto position = static_cast<off_t>(offset);
  ssize_t sent = 0;
  do sent = sendfile(null_.get(), file.fd.get(), &position, length);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) return sent;
  if (errno == EINVAL) file.has_pages = false;  // the file system knows no such call
  return -errno;
}

}  // namespace nvr::daemon
