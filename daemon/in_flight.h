// What the disk has been asked and has not answered: written by the disk thread as operations go and come,
// read by the control thread's watchdog. One entry per operation of the pool.
//
// The reader may see an entry change under its eyes (a torn mixture of two operations); it reports only
// operations that have been there for a long time, and those do not change.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "shm/disk_state.h"

namespace nvr::daemon {

class InFlight {
 public:
  explicit InFlight(std::uint32_t size) : entries_(size) {}

  // Disk thread. `since_ns` > 0.
  void begin(std::uint32_t index, shm::DiskOperation operation, std::uint64_t recording, std::uint64_t offset,
             std::uint64_t since_ns) {
    Entry& entry = entries_[index];
    entry.operation.store(operation, std::memory_order_relaxed);
    entry.recording.store(recording, std::memory_order_relaxed);
    entry.offset.store(offset, std::memory_order_relaxed);
    entry.since_ns.store(since_ns, std::memory_order_release);  // pairs with oldest()
  }
  void end(std::uint32_t index) { entries_[index].since_ns.store(0, std::memory_order_release); }

  // Control thread. kNone when nothing is in flight.
  [[nodiscard]] shm::OldestOperation oldest() const {
    shm::OldestOperation oldest;
    for (const Entry& entry : entries_) {
      const std::uint64_t since_ns = entry.since_ns.load(std::memory_order_acquire);
      if (since_ns == 0 || (oldest.since_ns != 0 && since_ns >= oldest.since_ns)) continue;
      oldest = {.operation = entry.operation.load(std::memory_order_relaxed),
                .since_ns = since_ns,
                .recording = entry.recording.load(std::memory_order_relaxed),
                .offset = entry.offset.load(std::memory_order_relaxed)};
    }
    return oldest;
  }
  // How many have been there since before `time_ns`.
  [[nodiscard]] std::uint32_t count_older_than(std::uint64_t time_ns) const {
    std::uint32_t count = 0;
    for (const Entry& entry : entries_) {
      const std::uint64_t since_ns = entry.since_ns.load(std::memory_order_relaxed);
      count += since_ns != 0 && since_ns < time_ns ? 1 : 0;
    }
    return count;
  }
  [[nodiscard]] std::uint32_t count() const {
    std::uint32_t count = 0;
    for (const Entry& entry : entries_) count += entry.since_ns.load(std::memory_order_relaxed) != 0 ? 1 : 0;
    return count;
  }

 private:
  struct alignas(64) Entry {
    std::atomic<std::uint64_t> since_ns = 0;  // 0: free
    std::atomic<shm::DiskOperation> operation = shm::DiskOperation::kNone;
    std::atomic<std::uint64_t> recording = 0;
    std::atomic<std::uint64_t> offset = 0;
  };
  std::vector<Entry> entries_;
};

}  // namespace nvr::daemon
