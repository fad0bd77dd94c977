#include "tests/hostile/decode.h"

#include <algorithm>
#include <cstring>

#include "shm/command.h"
#include "shm/ring.h"
#include "shm/socket.h"

namespace nvr::test {
namespace {

std::string problem_with_command(const shm::Command& command, std::uint32_t streams) {
  if (shm::offence_of(command, streams)) return "";
  if (command.stream >= streams) return "a stream that there is not";
  if (command.opcode == shm::Opcode::kClose || command.opcode == shm::Opcode::kFinish) return "";
  if (command.opcode != shm::Opcode::kOpen) return "an opcode that there is not";
  if (command.priority > Priority::kScrub || command.cache > CachePolicy::kDirect) return "an unknown policy";
  if ((command.flags & ~shm::kOpenKnownFlags) != 0) return "an unknown flag";
  const bool follows = (command.flags & shm::kOpenFollow) != 0;
  if (follows ? command.quiet_ms == 0 || command.cache == CachePolicy::kDirect : command.quiet_ms != 0)
    return "following without a time, or past the page cache";
  const bool to_end = (command.flags & shm::kOpenToEnd) != 0;
  if (to_end ? command.end != 0 : command.begin >= command.end) return "an empty range";
  return "";
}

template <class Message>
std::string problem_with_message(std::span<const std::byte> bytes) {
  const auto message = shm::decode_message<Message>(bytes);
  if (message.has_value() != (bytes.size() == Message{}.header.length))
    return "a message of the wrong length";
  if (message && memcmp(&*message, bytes.data(), bytes.size()) != 0) return "a message that was changed";
  return "";
}

std::string problem_with_goodbye(std::span<const std::byte> bytes) {
  const auto goodbye = shm::decode_message<shm::Goodbye>(bytes);
  if (goodbye && shm::to_error(*goodbye).message.size() > sizeof(goodbye->text)) return "text beyond its end";
  return "";
}

}  // namespace

std::string problem_decoding(std::span<const std::byte> bytes) {
  if (bytes.size() >= sizeof(shm::Command) + 1) {
    shm::Command command;
    memcpy(&command, bytes.data() + 1, sizeof(command));
    const auto streams = 1 + std::to_integer<std::uint32_t>(bytes[0]);
    if (auto problem = problem_with_command(command, streams); !problem.empty()) return problem;
    for (const std::uint32_t capacity : {2u, 16u, 1024u}) {
      const auto moved = shm::motion(command.stream, command.generation, capacity);
      if (moved && (*moved > capacity || command.generation + *moved != command.stream))
        return "an index that moved too far";
    }
  }
  const auto header = shm::check_header(bytes);
  if (header && (header->magic != shm::kMagic || header->length != bytes.size())) return "a wrong header";
  for (const auto& problem :
       {problem_with_message<shm::Hello>(bytes), problem_with_message<shm::Welcome>(bytes),
        problem_with_message<shm::Ready>(bytes), problem_with_message<shm::Goodbye>(bytes),
        problem_with_goodbye(bytes), problem_with_message<shm::StatusRequest>(bytes),
        problem_with_message<shm::StreamsRequest>(bytes), problem_with_message<shm::StallLogRequest>(bytes),
        problem_with_message<shm::DisconnectRequest>(bytes)}) {
    if (!problem.empty()) return problem;
  }
  return "";
}

}  // namespace nvr::test
