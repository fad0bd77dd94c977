// CPU time of whole processes, all their threads included (ended ones too), in nanoseconds as the scheduler
// counts it.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "nvr/error.h"

namespace nvr::bench {

[[nodiscard]] std::uint64_t own_cpu_ns();
// Of all children that have been waited for.
[[nodiscard]] std::uint64_t ended_children_cpu_ns();
// Of another process, as long as it has not been waited for.
[[nodiscard]] Result<std::uint64_t> cpu_ns_of(pid_t pid);

// Of everything that runs on this machine, to 10 ms or so: what is not ours disturbs what we measure.
[[nodiscard]] std::uint64_t machine_cpu_ns();

}  // namespace nvr::bench
