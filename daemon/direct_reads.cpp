#include "daemon/direct_reads.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "nvr/error.h"

namespace nvr::daemon {
namespace {

// Slots begin at multiples of it in their segment (shm/protocol.h), whatever the kernel's page size is.
constexpr std::uint32_t kSlotAlign = 4096;
static_assert(alignof(shm::ReadHeader) == kSlotAlign);

}  // namespace

DirectRead plan_direct_read(const Operation& operation) {
  const std::uint64_t align = operation.file->dio_align;
  const std::uint64_t position = operation.position();
  const std::uint32_t left = operation.left();
  const auto skip = static_cast<std::uint32_t>(position % align);
  const auto whole = static_cast<std::uint32_t>(left / align * align);
  // No block is larger than kSlotAlign, so what is aligned in the read is aligned in memory.
  if (skip == 0 && operation.done % align == 0 && whole > 0)
    return {.offset = position, .length = whole, .skip = 0, .bounces = false};
  const std::uint64_t end = (position + left + align - 1) / align * align;
  return {.offset = position - skip,
          .length = static_cast<std::uint32_t>(end - (position - skip)),
          .skip = skip,
          .bounces = true};
}

std::byte* BounceBuffer::get(std::uint32_t longest) {
  // The blocks around a read begin and end up to a block beside it.
  if (!memory_)
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kSlotAlign, longest + 2 * kSlotAlign)));
  return memory_.get();
}

void BounceBuffer::Free::operator()(std::byte* memory) const {
  std::free(memory);
}

std::int64_t BounceBuffer::deliver(const DirectRead& read, std::int64_t result,
                                   const Operation& operation) const {
  if (result <= read.skip) return std::min<std::int64_t>(result, 0);
  const std::int64_t count = std::min<std::int64_t>(result - read.skip, operation.left());
  std::array<iovec, kMaxReadSlots> parts;
  const std::uint32_t part_count = operation.parts_left(parts);
  const std::byte* from = memory_.get() + read.skip;
  auto left = static_cast<std::size_t>(count);
  for (std::uint32_t i = 0; i < part_count && left > 0; ++i) {
    const std::size_t length = std::min(parts[i].iov_len, left);
    std::memcpy(parts[i].iov_base, from, length);
    from += length;
    left -= length;
  }
  return count;
}

std::uint32_t direct_alignment_of(int fd) {
  struct statx st = {};
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_DIOALIGN, &st) != 0) return 0;
  if ((st.stx_mask & STATX_DIOALIGN) == 0) return kSlotAlign;  // before Linux 6.1; no disk asks for more
  if (st.stx_dio_offset_align == 0) return 0;
  const std::uint32_t align = std::max(st.stx_dio_offset_align, st.stx_dio_mem_align);
  return align <= kSlotAlign ? align : 0;
}

std::int32_t RegisteredWindows::add(io_uring& ring, std::span<std::byte> window) {
  if (state_ == State::kUnknown) {
    const int result = io_uring_register_buffers_sparse(&ring, kMax);
    state_ = result == 0 ? State::kWorks : State::kDoesNot;
    if (result != 0) return refuse(-result);
  }
  const auto free = std::find(used_.begin(), used_.end(), false);
  if (state_ == State::kDoesNot || free == used_.end()) return -1;
  const auto index = static_cast<std::uint32_t>(free - used_.begin());
  const iovec buffer = {.iov_base = window.data(), .iov_len = window.size()};
  const __u64 tag = 0;
  const int result = io_uring_register_buffers_update_tag(&ring, index, &buffer, &tag, 1);
  if (result < 0) return refuse(-result);
  *free = true;
  return static_cast<std::int32_t>(index);
}

void RegisteredWindows::remove(io_uring& ring, std::int32_t index) {
  if (index < 0) return;
  const iovec nothing = {.iov_base = nullptr, .iov_len = 0};
  const __u64 tag = 0;
  io_uring_register_buffers_update_tag(&ring, static_cast<unsigned>(index), &nothing, &tag, 1);
  used_[static_cast<std::size_t>(index)] = false;
}

std::int32_t RegisteredWindows::refuse(int error) {
  if (std::exchange(has_said_why_, true)) return -1;
  auto failed = fail_errno(error, "direct reads go without registered buffers, which costs some CPU");
  why_ = failed.value().message + (error == ENOMEM ? "; raise LimitMEMLOCK (ulimit -l)" : "");
  return -1;
}

}  // namespace nvr::daemon
