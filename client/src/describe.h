// What an error descriptor says, as an Error with a sentence for a person. Pure.
#pragma once

#include <string>

#include "nvr/client.h"
#include "shm/disk_state.h"
#include "shm/protocol.h"

namespace nvr::internal {

// The code that a daemon gave for an error, if it can be one: not Ok, a code that is none, or
// DeadlineExceeded, after which callers go on. Otherwise Unknown.
[[nodiscard]] Code checked_code(std::uint32_t code);

// `directory` is the daemon's --dir.
[[nodiscard]] Error describe(const shm::Descriptor& descriptor, const OpenRequest& request,
                             const std::string& directory);

// "; the disk has been stuck for 3.2 s on a read from 5/77 at offset 65536"; empty when nothing is stuck.
[[nodiscard]] std::string describe_stall(const std::optional<shm::OldestOperation>& oldest,
                                         std::uint64_t now_ns);

}  // namespace nvr::internal
