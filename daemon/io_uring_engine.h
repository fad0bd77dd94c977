// The io_uring engine: many operations in flight, reads landing in the clients' slots without a copy in user
// space, opens and closes through the ring as well, so that one bad sector holds up no other stream. The disk
// thread sleeps only inside io_uring_enter; the ring itself watches the doorbells. A recording that is
// read again and again is copied from its map as far as it is in memory (page_cache.h). Disk thread only: the
// ring is created in it.
//
// An operation in flight cannot be cancelled, and the kernel may write to its slots until it completes. So
// nothing here ever gives up on one: who wants to be rid of it waits for its completion (invariant 5).
#pragma once

#include <liburing.h>
#include <linux/openat2.h>

#include <array>
#include <deque>
#include <vector>

#include "daemon/engine.h"
#include "daemon/page_cache.h"

namespace nvr::daemon {

class IoUringEngine final : public Engine {
 public:
  // Sets up a ring of `depth` operations and proves that it works in this directory. The Error names the
  // cause (kernel, seccomp, sysctl, memlock, descriptors) and the remedy. `directory` outlives the engine;
  // `wakeups` is the epoll descriptor of the doorbells.
  [[nodiscard]] static Result<std::unique_ptr<IoUringEngine>> create(const SampleDir& directory, int wakeups,
                                                                     std::uint32_t depth);
  ~IoUringEngine() override;

  [[nodiscard]] std::string_view name() const override { return "io_uring"; }
  [[nodiscard]] std::uint32_t depth() const override { return depth_; }
  [[nodiscard]] std::uint32_t read_slots() const override { return 16; }  // 1 MiB
  void submit(Operation& operation) override;
  std::size_t reap(std::span<Completion> completions) override;
  void close(std::unique_ptr<SampleFile> file) override;
  void wait(int timeout_ms) override;

 private:
  IoUringEngine(const SampleDir& directory, int wakeups, std::uint32_t depth);

  [[nodiscard]] Result<void> set_up();
  [[nodiscard]] Result<void> prove();
  [[nodiscard]] io_uring_sqe& next_sqe();
  void submit_open(Operation& operation);
  void submit_read(Operation& operation);
  void watch_doorbells();
  [[nodiscard]] std::int64_t finish(Operation& operation, std::int64_t result) const;

  // What the kernel reads of a submission; stays until the operation has completed.
  struct Request {
    std::array<char, 17> name;
    std::array<iovec, kMaxReadSlots> parts;
    bool reads_extents;  // submitted so that it may wait for them
  };

  const SampleDir* directory_;
  int wakeups_;
  std::uint32_t depth_;
  open_how how_ = {};
  io_uring ring_ = {};
  bool is_set_up_ = false;
  PageCache cache_;
  std::vector<Request> requests_;  // by Operation::index
  std::deque<Operation*> hot_;     // reads that are tried without the ring first
  std::uint32_t outstanding_ = 0;  // completions that are still to come, but for the doorbells'
};

}  // namespace nvr::daemon
