// What a spinning disk has been asked of what the plan hands out: one segment that it is at and one that
// waits, so that it never has to wait for us. A new stream steps in between two segments, and no other
// follows until it has its first chunk: its open is several reads, each far from the next, and a drive that
// chooses for itself would put each of them behind all that is on its way. What is stuck does not count, for
// everybody else goes on. Pure; disk thread only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "daemon/operation.h"
#include "daemon/visit_plan.h"

namespace nvr::daemon {

class Lanes {
 public:
  static constexpr std::uint32_t kSegments = 2;  // more bring nothing: the disk is at one of them at a time

  // `reserve_percent` of the disk's time is left to others; then one segment at a time, and a pause after
  // each. What has been there for `stuck_ns` does not count. `new_first`: segments wait for new streams.
  Lanes(std::uint32_t reserve_percent, std::uint64_t stuck_ns, bool new_first)
      : reserve_percent_(reserve_percent), stuck_ns_(stuck_ns), new_first_(new_first) {}

  [[nodiscard]] bool has_room_for_segment(std::uint64_t now_ns) const {
    return now_ns >= paused_until_ns_ &&
           count(Operation::Lane::kSegment, now_ns) < (reserve_percent_ == 0 ? kSegments : 1) &&
           !(new_first_ && count(Operation::Lane::kNew, now_ns) > 0);
  }
  // One at a time, to its first chunk. A storm of them may have half of the time, and all that nobody else
  // wants. `has_begun`: it was opened, and goes on.
  [[nodiscard]] bool has_room_for_new(std::uint64_t now_ns, bool has_begun, bool others_wait) const {
    return (has_begun || now_ns >= new_again_ns_ || !others_wait) && count(Operation::Lane::kNew, now_ns) < 1;
  }
  // Is one of the stream's own stuck? Then more for it would be, too.
  [[nodiscard]] bool is_stuck_with(const ServedStream& stream, std::uint64_t now_ns) const {
    return std::ranges::any_of(operations_, [&](const Operation* operation) {
      return operation->stream == &stream && now_ns - operation->submitted_ns >= stuck_ns_;
    });
  }
  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(operations_.size()); }
  // When the pause is over; in the past if there is none.
  [[nodiscard]] std::uint64_t paused_until_ns() const { return paused_until_ns_; }

  void enter(Operation& operation, Operation::Lane lane) {
    operation.lane = lane;
    if (operation.kind == Operation::Kind::kOpen) new_ns_ = 0;
    operation.sought =
        operation.file == nullptr || operation.file != last_file_ || operation.offset != last_end_;
    last_file_ = operation.file;
    last_end_ = operation.offset + operation.length;
    operations_.push_back(&operation);
  }
  // The engine is done with it; the model learns from it.
  void leave(Operation& operation, std::uint64_t now_ns, DiskModel& model) {
    std::erase(operations_, &operation);
    const std::uint64_t service_ns = now_ns - std::max(operation.submitted_ns, last_done_ns_);
    last_done_ns_ = now_ns;
    // When it hung for longer, the disk took the time, and others have gone on meanwhile.
    const std::uint64_t charged_ns = std::min(service_ns, stuck_ns_);
    if (operation.lane == Operation::Lane::kNew) {
      new_ns_ += charged_ns;
      new_again_ns_ = now_ns + new_ns_;
    }
    if (operation.lane != Operation::Lane::kSegment) return;
    paused_until_ns_ = now_ns + charged_ns * reserve_percent_ / (100 - reserve_percent_);
    if (operation.error == 0 && service_ns < stuck_ns_)
      model.record(operation.done, service_ns, operation.sought);
  }

 private:
  [[nodiscard]] std::uint32_t count(Operation::Lane lane, std::uint64_t now_ns) const {
    return static_cast<std::uint32_t>(std::ranges::count_if(operations_, [&](const Operation* operation) {
      return operation->lane == lane && now_ns - operation->submitted_ns < stuck_ns_;
    }));
  }

  std::uint32_t reserve_percent_;
  std::uint64_t stuck_ns_;
  bool new_first_;
  std::vector<Operation*> operations_;
  const SampleFile* last_file_ = nullptr;  // compared, never looked into
  std::uint64_t last_end_ = 0;
  std::uint64_t last_done_ns_ = 0;
  std::uint64_t paused_until_ns_ = 0;
  std::uint64_t new_ns_ = 0;  // what the new stream has taken of the disk's time so far
  std::uint64_t new_again_ns_ = 0;
};

}  // namespace nvr::daemon
