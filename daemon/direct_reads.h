// What O_DIRECT asks for, met for any range (CachePolicy::kDirect): where offset, length and memory of a read
// are aligned it goes straight into the slots; the rest goes through a bounce buffer that holds the aligned
// blocks around it. And the registered buffers of such reads. Disk thread only; the io_uring engine's.
//
// A bounce buffer belongs to one operation of the engine at a time, until its completion.
#pragma once

#include <liburing.h>

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/operation.h"

namespace nvr::daemon {

// How a direct read of what is left of an operation is put to the kernel.
struct DirectRead {
  std::uint64_t offset = 0;  // of the file; aligned
  std::uint32_t length = 0;  // aligned
  std::uint32_t skip = 0;    // bytes at the begin that were not asked for
  bool bounces = false;      // otherwise it goes into the slots
};
[[nodiscard]] DirectRead plan_direct_read(const Operation& operation);

// Aligned memory, from the first use on.
class BounceBuffer {
 public:
  // For any read of up to `longest` bytes, which is the same each time. Null when there is no memory.
  [[nodiscard]] std::byte* get(std::uint32_t longest);
  // Copies what the kernel has read (`result` bytes at read.offset) to the operation's slots. Returns the
  // bytes of what was asked for, 0 when the file ends before them.
  [[nodiscard]] std::int64_t deliver(const DirectRead& read, std::int64_t result,
                                     const Operation& operation) const;

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
};

// Alignment that O_DIRECT reads of this file need: a power of two. 0: there is no such reading here.
[[nodiscard]] std::uint32_t direct_alignment_of(int fd);

// Windows registered with a ring, so that the kernel does not look up and pin their pages for each read. It
// is bounded by the memory that may be locked; without it reads are as exact, and cost more.
class RegisteredWindows {
 public:
  static constexpr std::uint32_t kMax = 64;

  // The index of `window`, or -1 where it cannot be registered; then, the first time, why() says why.
  [[nodiscard]] std::int32_t add(io_uring& ring, std::span<std::byte> window);
  // Once no read of it is in flight.
  void remove(io_uring& ring, std::int32_t index);
  [[nodiscard]] std::optional<std::string> take_why() { return std::exchange(why_, std::nullopt); }

 private:
  [[nodiscard]] std::int32_t refuse(int error);

  enum class State : std::uint8_t { kUnknown, kWorks, kDoesNot };
  State state_ = State::kUnknown;
  std::array<bool, kMax> used_ = {};
  std::optional<std::string> why_;
  bool has_said_why_ = false;
};

}  // namespace nvr::daemon
