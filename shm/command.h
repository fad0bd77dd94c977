// Judging a command: the one place where what a client wrote is believed or not.
#pragma once

#include <optional>

#include "shm/protocol.h"

namespace nvr::shm {

// Pure. Nothing, if `command` (a private copy) can come from a client that keeps to the protocol with this
// many streams; otherwise the rule that it breaks. What depends on a stream's state (generations) is judged
// by the stream; what depends on the file (a range beyond its end) is an error of that stream and no offence.
[[nodiscard]] std::optional<const char*> offence_of(const Command& command, std::uint32_t streams);

}  // namespace nvr::shm
