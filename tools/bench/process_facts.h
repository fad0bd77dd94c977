// What /proc says of another process: its own memory, and how often its threads have slept or been preempted.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "nvr/error.h"

namespace nvr::bench {

struct MemoryUse {
  double own_kib = 0;     // written, and nobody else's: heap, stacks, data; not what it shares with clients
  double window_kib = 0;  // memfds: what it shares with clients
  double table_kib = 0;   // page tables
};

[[nodiscard]] Result<MemoryUse> memory_of(pid_t pid);
// Context switches of all its threads since they started, voluntary or not.
[[nodiscard]] Result<std::uint64_t> switches_of(pid_t pid);

}  // namespace nvr::bench
