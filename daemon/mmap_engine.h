// The default engine: one operation at a time, done in reap(), at memory's speed for what is in the page
// cache. Only prefetches begin when they are submitted, so that the disk has the next before it is through
// with one.
//
// What is not in memory is brought in first by a system call that waits outside mmap_lock and returns a clean
// EIO; then it is copied as everything is (page_cache.h). A file system that has no pages to map, or none
// that can be brought in that way, is read by preadv(). Disk thread only.
#pragma once

#include "daemon/closing.h"
#include "daemon/drop_behind.h"
#include "daemon/engine.h"
#include "daemon/page_cache.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

class MmapEngine final : public Engine {
 public:
  // `directory` outlives the engine. `request_bytes`: the most that the kernel reads ahead at one bidding
  // (Device::request_bytes).
  [[nodiscard]] static Result<std::unique_ptr<MmapEngine>> create(const SampleDir& directory,
                                                                  std::uint64_t request_bytes);

  [[nodiscard]] std::string_view name() const override { return "mmap"; }
  [[nodiscard]] std::uint32_t depth() const override { return 1; }
  // 512 KiB: at memory's speed a client waits about 30 us for the first of them, and is woken once for all.
  [[nodiscard]] std::uint32_t read_slots() const override { return kReadSlots; }
  void submit(Operation& operation) override;
  std::size_t reap(std::span<Completion> completions) override;
  void close(std::unique_ptr<SampleFile> file) override { closing_.add(std::move(file->fd)); }
  void settle() override { closing_.close_all(); }
  [[nodiscard]] int wait(int timeout_ms) override;

 private:
  static constexpr std::uint32_t kReadSlots = 16;

  MmapEngine(const SampleDir& directory, std::uint64_t request_bytes, shm::UniqueFd null)
      : directory_(&directory), request_bytes_(request_bytes), null_(std::move(null)) {}

  [[nodiscard]] bool has_come() const;
  std::int64_t perform(Operation& operation);
  std::int64_t open(Operation& operation);
  std::int64_t read(Operation& operation);
  std::int64_t read_pages(Operation& operation);
  std::int64_t read_dropping(Operation& operation);
  void advise(const SampleFile& file, std::uint64_t from, std::uint64_t to) const;
  std::int64_t bring_in(SampleFile& file, std::uint64_t offset, std::uint32_t length);
  std::int64_t wait_for(SampleFile& file, std::uint64_t offset, std::uint32_t length);
  std::int64_t prefetch(Operation& operation);

  const SampleDir* directory_;
  std::uint64_t request_bytes_;
  shm::UniqueFd null_;  // /dev/null: where sendfile sends what it brings in
  PageCache cache_;
  DropBehind drop_behind_;
  Closing closing_;
  OperationQueue submitted_;
  OperationQueue coming_;  // prefetches: the disk is at them
};

}  // namespace nvr::daemon
