// The stall state in R's header: a seqlock with one writer (the daemon's control thread) and any number of
// readers. Every access is seq_cst: it changes a few times a second at most, and the plain reading of the
// order is the proof.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "shm/clock.h"
#include "shm/protocol.h"

namespace nvr::shm {

// The oldest operation that the disk has not answered yet.
struct OldestOperation {
  DiskOperation operation = DiskOperation::kNone;
  std::uint64_t since_ns = 0;   // the daemon's CLOCK_MONOTONIC
  std::uint64_t recording = 0;  // composite id
  std::uint64_t offset = 0;
  std::uint64_t stuck_ns = 0;   // until the daemon's last heartbeat; 0: not counted
  std::uint64_t silent_ns = 0;  // of these, since the disk answered anything

  friend bool operator==(const OldestOperation&, const OldestOperation&) = default;
};

inline void write_disk_state(DiskState& shared, const OldestOperation& oldest, bool refuses_opens) {
  const std::uint32_t sequence = shared.sequence.load();
  shared.sequence.store(sequence + 1);
  shared.operation.store(static_cast<std::uint32_t>(oldest.operation));
  shared.since_ns.store(oldest.since_ns);
  shared.recording.store(oldest.recording);
  shared.offset.store(oldest.offset);
  shared.stuck_ns.store(oldest.stuck_ns);
  shared.silent_ns.store(oldest.silent_ns);
  shared.refuses_opens.store(refuses_opens ? 1 : 0);
  shared.sequence.store(sequence + 2);
}

// Nothing after a hundred attempts, which only a daemon that died in the middle of writing brings about.
[[nodiscard]] inline std::optional<OldestOperation> read_disk_state(const DiskState& shared) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    const std::uint32_t before = shared.sequence.load();
    const OldestOperation oldest{.operation = static_cast<DiskOperation>(shared.operation.load()),
                                 .since_ns = shared.since_ns.load(),
                                 .recording = shared.recording.load(),
                                 .offset = shared.offset.load(),
                                 .stuck_ns = shared.stuck_ns.load(),
                                 .silent_ns = shared.silent_ns.load()};
    if ((before & 1) == 0 && shared.sequence.load() == before) return oldest;
  }
  return std::nullopt;
}

// For how long the operation has been on the disk, as a client tells it. The daemon counts: its clock is not
// the client's where one of them is in a time namespace of its own. One before 1.3 leaves it to the client.
[[nodiscard]] inline std::uint64_t stuck_for_ns(const OldestOperation& oldest, std::uint64_t now_ns) {
  if (oldest.stuck_ns != 0) return std::min<std::uint64_t>(oldest.stuck_ns, INT64_MAX);
  return now_ns > oldest.since_ns ? now_ns - oldest.since_ns : 0;
}

// Of these, for how long it has answered nothing else.
[[nodiscard]] inline std::uint64_t silent_for_ns(const OldestOperation& oldest, std::uint64_t now_ns) {
  const std::uint64_t stuck_ns = stuck_for_ns(oldest, now_ns);
  return oldest.stuck_ns != 0 ? std::min(oldest.silent_ns, stuck_ns) : stuck_ns;
}

// Does the disk answer others meanwhile?
[[nodiscard]] inline bool answers_others(const OldestOperation& oldest, std::uint64_t now_ns) {
  return silent_for_ns(oldest, now_ns) < std::min(stuck_for_ns(oldest, now_ns), kSecond);
}

}  // namespace nvr::shm
