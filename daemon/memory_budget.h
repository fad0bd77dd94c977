// How much memory this process can have: the machine's, or less where a cgroup limits it. A container of 256
// MiB on a machine of 64 GiB is killed for what the machine would have had room for.
#pragma once

#include <cstdint>
#include <string>

namespace nvr::daemon {

// The least of the machine's memory and the limits of the cgroups that the process is in, their ancestors
// included: memory.max (v2), memory.limit_in_bytes (v1). Bytes. `proc`: where mountinfo and cgroup of the
// process are. Reads /proc and cgroup file systems, which ask no disk.
[[nodiscard]] std::uint64_t available_memory_bytes(const std::string& proc = "/proc/self");

}  // namespace nvr::daemon
