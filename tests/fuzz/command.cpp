// Commands, as the daemon takes them from W: the number of streams, then the 64 bytes of a cell.
#include "shm/command.h"

#include <cstring>

#include "shm/ring.h"
#include "tests/fuzz/target.h"

namespace nvr::test {
namespace {

using shm::Command;
using shm::Opcode;

// The protocol's rules again, as shm/protocol.h states them. Empty if the command keeps all of them.
const char* broken_rule(const Command& command, std::uint32_t streams) {
  if (command.stream >= streams) return "a stream that does not exist";
  if (command.reserved[0] != 0 || command.reserved[1] != 0) return "a reserved field that is set";
  if (command.opcode == Opcode::kClose || command.opcode == Opcode::kFinish) return "";
  if (command.opcode != Opcode::kOpen) return "an unknown opcode";
  if (command.priority > Priority::kScrub || command.cache > CachePolicy::kDirect) return "an unknown policy";
  if ((command.flags & ~shm::kOpenKnownFlags) != 0) return "an unknown flag";
  const bool stats = (command.flags & shm::kOpenStatOnly) != 0;
  const bool follows = (command.flags & shm::kOpenFollow) != 0;
  if (follows && (command.quiet_ms == 0 || command.cache == CachePolicy::kDirect || stats))
    return "following without a time, past the page cache, or for the facts only";
  if (!follows && command.quiet_ms != 0) return "a time without following";
  const bool to_end = (command.flags & shm::kOpenToEnd) != 0;
  if (to_end ? command.end != 0 : command.begin >= command.end) return "an empty range";
  return "";
}

void check_motion(const Command& command, Judgement& judgement) {
  for (const std::uint32_t capacity : {2u, 16u, 1024u}) {
    const std::uint32_t distance = command.stream - command.generation;
    const auto moved = shm::motion(command.stream, command.generation, capacity);
    judgement.require(moved.has_value() == (distance <= capacity) && moved.value_or(distance) == distance,
                      "an index that moved too far was believed, or a good one was not");
  }
}

// Both ends of the command ring, and the judgement of what came out of it.
void run(std::span<const std::byte> input, Judgement& judgement) {
  if (input.size() != sizeof(Command) + 1) return;
  Program program(input);
  const std::uint32_t streams = 1 + program.take<std::uint8_t>();
  const auto command = program.take<Command>();
  check_motion(command, judgement);

  static shm::WriteHeader header;
  static shm::CommandCell cells[8];
  shm::CommandProducer producer(header, cells, 8, shm::kFirstIndex);
  shm::CommandConsumer consumer(header, cells, 8, shm::kFirstIndex);
  producer.put(command);
  int taken = 0;
  const bool believed = consumer.take([&](const Command& copy) {
    ++taken;
    judgement.require(memcmp(&copy, &command, sizeof(command)) == 0, "the ring changed a command");
    const auto offence = shm::offence_of(copy, streams);
    const std::string rule = broken_rule(copy, streams);
    if (offence.has_value() != !rule.empty())
      judgement.object(offence ? std::string("refused without need: ") + *offence : "accepted: " + rule);
    if (offence)
      judgement.reach(*offence);
    else if (copy.opcode != Opcode::kOpen)
      judgement.reach(copy.opcode == Opcode::kClose ? "CLOSE" : "FINISH");
    else
      judgement.reach("OPEN with flags " + std::to_string(copy.flags));
    return true;
  });
  judgement.require(believed && taken == 1, "the ring lost a command");
}

}  // namespace

const FuzzTarget command_target = {
    "command",
    run,
    {"CLOSE", "FINISH", "OPEN with flags 0", "OPEN with flags 1", "OPEN with flags 2", "OPEN with flags 3",
     "OPEN with flags 4", "OPEN with flags 5", "command for a stream that the connection does not have",
     "command with reserved fields set", "command with an unknown opcode", "OPEN with an unknown priority",
     "OPEN with an unknown cache policy", "OPEN with unknown flags",
     "OPEN that follows without a time, or a time without that", "OPEN that follows what cannot be followed",
     "OPEN to the end of the file with an end", "OPEN with an empty range"}};

}  // namespace nvr::test
