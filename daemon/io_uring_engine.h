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
#include <vector>

#include "daemon/direct_reads.h"
#include "daemon/drop_behind.h"
#include "daemon/engine.h"
#include "daemon/page_cache.h"

namespace nvr::daemon {

class IoUringEngine final : public Engine {
 public:
  // Sets up a ring of `depth` operations and proves that it works in this directory. The Error names the
  // cause (kernel, seccomp, sysctl, memlock, descriptors) and the remedy. `directory` outlives the engine;
  // `wakeups` is the epoll descriptor of the doorbells. `restrict_ring`: see ring_restrictions.h.
  // `request_bytes`: the most that the kernel reads ahead at one bidding (Device::request_bytes).
  [[nodiscard]] static Result<std::unique_ptr<IoUringEngine>> create(const SampleDir& directory, int wakeups,
                                                                     std::uint32_t depth, bool restrict_ring,
                                                                     std::uint64_t request_bytes = 128 << 10);
  ~IoUringEngine() override;

  [[nodiscard]] std::string_view name() const override { return "io_uring"; }
  [[nodiscard]] std::uint32_t depth() const override { return depth_; }
  [[nodiscard]] std::uint32_t read_slots() const override { return kReadSlots; }
  [[nodiscard]] bool reads_direct() const override { return true; }
  [[nodiscard]] std::optional<Error> failure() const override { return failure_; }
  [[nodiscard]] std::string confinement() const override;
  [[nodiscard]] std::optional<std::string> take_note() override { return windows_.take_why(); }
  void submit(Operation& operation) override;
  std::size_t reap(std::span<Completion> completions) override;
  void close(std::unique_ptr<SampleFile> file) override;
  [[nodiscard]] int wait(int timeout_ms) override;

 private:
  static constexpr std::uint32_t kReadSlots = 16;  // 1 MiB

  // What the kernel reads of a submission; stays until the operation has completed.
  struct Request {
    std::array<char, 17> name;
    open_how how;
    std::array<iovec, kMaxReadSlots> parts;
    bool reads_extents;   // submitted so that it may wait for them
    std::uint64_t round;  // when it was submitted
    DirectRead direct;
    BounceBuffer bounce;
  };

  IoUringEngine(const SampleDir& directory, int wakeups, std::uint32_t depth, std::uint64_t request_bytes);

  [[nodiscard]] int create_ring(unsigned more_flags);
  [[nodiscard]] Result<void> set_up(bool restrict_ring);
  [[nodiscard]] Result<void> prove();
  [[nodiscard]] io_uring_sqe& next_sqe();
  void judge(int result, bool for_good = false);
  void submit_open(Operation& operation);
  void submit_read(Operation& operation);
  void submit_buffered(Operation& operation);
  void submit_prefetch(Operation& operation);
  void advise(const Operation& operation);
  [[nodiscard]] static bool is_cached(const Operation& operation);
  void submit_direct(Operation& operation);
  void send_read(Operation& operation, io_uring_sqe& sqe, bool may_wait_for_extents);
  void watch_doorbells();
  [[nodiscard]] std::int64_t finish(Operation& operation, std::int64_t result);
  [[nodiscard]] std::int64_t finish_open(Operation& operation, std::int64_t result) const;
  [[nodiscard]] std::int64_t finish_read(Operation& operation, std::int64_t result);

  const SampleDir* directory_;
  int wakeups_;
  std::uint32_t depth_;
  std::uint64_t request_bytes_;
  open_how how_ = {};
  io_uring ring_ = {};
  bool is_set_up_ = false;
  bool is_restricted_ = false;
  std::optional<Error> failure_;
  io_uring_sqe discarded_ = {};  // written to in the place of a real one, after a failure
  PageCache cache_;
  DropBehind drop_behind_;
  RegisteredWindows windows_;
  std::vector<Request> requests_;   // by Operation::index
  OperationQueue in_memory_;        // reads that are tried without the ring first
  std::uint64_t rounds_ = 0;        // of reap()
  std::vector<std::byte> nowhere_;  // written to by every prefetch, read by nobody
  std::uint32_t outstanding_ = 0;   // completions that are still to come, but for the doorbells'
};

}  // namespace nvr::daemon
