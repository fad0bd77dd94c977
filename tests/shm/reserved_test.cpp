// Commands: what today's clients may not use yet.
#include <catch2/catch.hpp>

#include "shm/command.h"

namespace nvr::shm {
namespace {

TEST_CASE("command: reserved words are zero in every command") {
  for (const auto opcode : {Opcode::kOpen, Opcode::kClose, Opcode::kFinish}) {
    for (const std::size_t word : {0u, 1u}) {
      CAPTURE(static_cast<int>(opcode), word);
      Command command{.opcode = opcode, .stream = 1, .generation = 5, .recording = 1, .begin = 10, .end = 20};
      REQUIRE_FALSE(offence_of(command, 2));
      command.reserved[word] = std::uint64_t{1} << 63;
      CHECK(offence_of(command, 2));
    }
  }
}

}  // namespace
}  // namespace nvr::shm
