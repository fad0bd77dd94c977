#include "shm/command.h"

#include <algorithm>
#include <iterator>

namespace nvr::shm {

std::optional<const char*> offence_of(const Command& command, std::uint32_t streams) {
  if (command.stream >= streams) return "command for a stream that the connection does not have";
  if (std::ranges::any_of(command.reserved, [](std::uint64_t word) { return word != 0; }))
    return "command with reserved fields set";
  if (command.opcode == Opcode::kClose || command.opcode == Opcode::kFinish) return std::nullopt;
  if (command.opcode != Opcode::kOpen) return "command with an unknown opcode";
  if (command.priority > Priority::kScrub) return "OPEN with an unknown priority";
  if (command.cache > CachePolicy::kDirect) return "OPEN with an unknown cache policy";
  if ((command.flags & ~kOpenKnownFlags) != 0) return "OPEN with unknown flags";
  const bool follows = (command.flags & kOpenFollow) != 0;
  if (follows != (command.quiet_ms != 0)) return "OPEN that follows without a time, or a time without that";
  if (follows && ((command.flags & kOpenStatOnly) != 0 || command.cache == CachePolicy::kDirect))
    return "OPEN that follows what cannot be followed";
  if ((command.flags & kOpenToEnd) != 0) {
    if (command.end != 0) return "OPEN to the end of the file with an end";
  } else if (command.begin >= command.end) {
    return "OPEN with an empty range";
  }
  return std::nullopt;
}

}  // namespace nvr::shm
