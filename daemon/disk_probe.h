// Does the disk still answer, while something is stuck on it? A small read past the page cache, of a
// recording that was read lately: a bad sector elsewhere does not hold it up, and what is in memory does not
// answer in the disk's place. For engines that go on while operations are stuck. Disk thread only.
//
// One probe at a time, one a second. A probe that is stuck stays: when it ends, the disk has answered.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "daemon/engine.h"
#include "daemon/operation.h"
#include "daemon/statistics.h"
#include "shm/clock.h"

namespace nvr::daemon {

class DiskProbe {
 public:
  static constexpr std::uint64_t kPeriodNs = shm::kSecond;

  // Notes in `statistics` when a probe was answered last.
  DiskProbe(Engine& engine, OperationPool& operations, DiskStatistics& statistics)
      : engine_(engine), operations_(operations), statistics_(statistics) {}

  // `recording` has been read from: it is there, and can be asked for.
  void remember(RecordingId recording) { recording_ = recording; }
  // Starts a probe if it is time for one and there is something to ask for.
  void start_if_due(std::uint64_t now_ns);
  [[nodiscard]] bool owns(const Operation& operation) const { return &operation == operation_; }
  // A completion of the operation that it owns.
  void on_completion(Operation& operation, std::int64_t result, std::uint64_t now_ns);

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };

  void read(Operation& operation, std::unique_ptr<SampleFile> file);
  void end(Operation& operation);

  Engine& engine_;
  OperationPool& operations_;
  DiskStatistics& statistics_;
  std::optional<RecordingId> recording_;
  Operation* operation_ = nullptr;  // with the engine
  std::unique_ptr<SampleFile> file_;
  std::unique_ptr<std::byte, Free> buffer_;
  std::uint64_t started_ns_ = 0;
};

}  // namespace nvr::daemon
