// Which of the waiting requests the head turns to next. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "tools/slowdisk/request.h"

namespace nvr::slowdisk {

enum class Policy : std::uint8_t {
  kElevator,  // upwards from the head, then from the lowest again: every request gets its turn
  kNearest,   // the shortest way; the far ones wait until they are too old
  kFifo,      // as they came
};

struct QueueOptions {
  Policy policy = Policy::kElevator;
  // A request that has waited longer goes first. Far below the time that a full queue takes, it makes any
  // policy a FIFO.
  Time longest_wait = std::chrono::seconds(1);
  // How many of the oldest requests the drive knows of and can choose from (NCQ: 32).
  std::uint64_t depth = 32;
};

// `waiting`: oldest first, those that must not be served left out. The index of the one to serve; nothing
// when there is none.
[[nodiscard]] std::optional<std::size_t> pick(std::span<const Request* const> waiting, std::uint64_t head,
                                              Time now, const QueueOptions& options);

}  // namespace nvr::slowdisk
