// The one virtual interface: how operations reach the disk. Implementations: mmap, io_uring, and a seeded
// simulation for tests. Disk thread only.
//
// An engine does one thing, once: short reads, EINTR and EAGAIN are reported as they come and dealt with
// above, by submitting what is left of the operation again.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "daemon/operation.h"
#include "nvr/error.h"

namespace nvr::daemon {

struct Completion {
  Operation* operation = nullptr;
  // Open: 0 (`opened` holds the file) or a negative errno. Read: bytes read at offset + done, at least 1; 0
  // where the file ends; or a negative errno.
  std::int64_t result = 0;
};

class Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;
  // How many operations to keep on the disk. Some more may be submitted, up to kMaxOperations in all, when
  // some of them are stuck.
  [[nodiscard]] virtual std::uint32_t depth() const = 0;

  // The most slots that one read may fill, at most kMaxReadSlots. What is read is published when all of it is
  // there.
  [[nodiscard]] virtual std::uint32_t read_slots() const = 0;

  // Does it read past the page cache (CachePolicy::kDirect)?
  [[nodiscard]] virtual bool reads_direct() const { return false; }
  // Why nothing will come of any operation any more, if so: what has been submitted is the kernel's for good.
  [[nodiscard]] virtual std::optional<Error> failure() const { return std::nullopt; }
  // What bounds its ways to the kernel that no filter of system calls sees, for the log; may be empty.
  [[nodiscard]] virtual std::string confinement() const { return {}; }
  // What the log should say, once.
  [[nodiscard]] virtual std::optional<std::string> take_note() { return std::nullopt; }

  // Hands an operation over. Never fails: what goes wrong is its completion.
  virtual void submit(Operation& operation) = 0;
  // Fills in completions that are there, up to the span's length, and returns how many. An engine without
  // asynchrony does the work here, one operation a call.
  virtual std::size_t reap(std::span<Completion> completions) = 0;
  // Closes a file of which no operation is in flight; now, or with others before the next settle() or wait().
  // Some file systems wait for the disk at a close.
  virtual void close(std::unique_ptr<SampleFile> file) { file.reset(); }
  // Called whenever no stream waits to be opened.
  virtual void settle() {}
  // Sleeps until a completion is there, a doorbell has rung (the epoll descriptor given at creation is
  // readable), or `timeout_ms` (-1: none) has passed; then returns 0. Or, where nothing completes but
  // doorbells, returns for how long the caller may sleep, which it can do as it takes them: a system call
  // less.
  [[nodiscard]] virtual int wait(int timeout_ms) = 0;
};

}  // namespace nvr::daemon
