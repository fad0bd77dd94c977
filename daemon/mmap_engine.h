// The default engine: the range of a stream is mapped once, and each chunk copied into its slot. What is not
// in the page cache is brought in first by a system call that waits outside mmap_lock and returns a clean
// EIO; the SIGBUS guard around the copy is for truncation and reclaim only. One operation at a time, done in
// reap(). Disk thread only.
#pragma once

#include <deque>

#include "daemon/engine.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

class MmapEngine final : public Engine {
 public:
  // `directory` outlives the engine. `wakeups` is the epoll descriptor that wait() sleeps on.
  [[nodiscard]] static Result<std::unique_ptr<MmapEngine>> create(const SampleDir& directory, int wakeups);

  [[nodiscard]] std::string_view name() const override { return "mmap"; }
  [[nodiscard]] std::uint32_t depth() const override { return 1; }
  // 512 KiB: at memory's speed a client waits about 30 us for the first of them, and is woken once for all.
  [[nodiscard]] std::uint32_t read_slots() const override { return 8; }
  void submit(Operation& operation) override { submitted_.push_back(&operation); }
  std::size_t reap(std::span<Completion> completions) override;
  void wait(int timeout_ms) override;

 private:
  MmapEngine(const SampleDir& directory, int wakeups, shm::UniqueFd null)
      : directory_(&directory), wakeups_(wakeups), null_(std::move(null)) {}

  std::int64_t open(Operation& operation);
  std::int64_t read(Operation& operation);
  static std::int64_t copy(const SampleFile& file, std::uint64_t offset, std::span<std::byte> target);
  static bool is_resident(SampleFile& file, std::uint64_t offset, std::uint32_t length);
  std::int64_t bring_in(SampleFile& file, std::uint64_t offset, std::uint32_t length);

  const SampleDir* directory_;
  int wakeups_;
  shm::UniqueFd null_;  // /dev/null: where sendfile sends what it brings in
  std::deque<Operation*> submitted_;
};

}  // namespace nvr::daemon
