// Judging commands: what is an offence and what is not.
#include "shm/command.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>

namespace nvr::shm {
namespace {

Command good_open() {
  return {.opcode = Opcode::kOpen, .stream = 1, .generation = 5, .recording = 1, .begin = 10, .end = 20};
}

TEST_CASE("command: well-formed ones are no offence") {
  CHECK_FALSE(offence_of(good_open(), 2));
  Command to_end = good_open();
  to_end.flags = kOpenToEnd;
  to_end.end = 0;
  CHECK_FALSE(offence_of(to_end, 2));
  to_end.flags = kOpenToEnd | kOpenFollow;
  to_end.quiet_ms = 1;
  CHECK_FALSE(offence_of(to_end, 2));
  CHECK_FALSE(offence_of({.opcode = Opcode::kClose, .stream = 0, .generation = 9}, 2));
  CHECK_FALSE(offence_of({.opcode = Opcode::kFinish, .stream = 0, .generation = 9}, 2));
}

TEST_CASE("command: each broken rule is an offence") {
  const auto broken = [](auto&& change) {
    Command command = good_open();
    change(command);
    return offence_of(command, 2).has_value();
  };
  CHECK(broken([](Command& c) { c.stream = 2; }));
  CHECK(broken([](Command& c) { c.opcode = static_cast<Opcode>(0); }));
  CHECK(broken([](Command& c) { c.opcode = static_cast<Opcode>(4); }));
  CHECK(broken([](Command& c) { c.priority = static_cast<Priority>(4); }));
  CHECK(broken([](Command& c) { c.cache = static_cast<CachePolicy>(3); }));
  CHECK(broken([](Command& c) { c.flags = 8; }));
  CHECK(broken([](Command& c) { c.end = c.begin; }));
  CHECK(broken([](Command& c) { c.begin = c.end + 1; }));
  CHECK(broken([](Command& c) { c.flags = kOpenToEnd; }));   // with an end
  CHECK(broken([](Command& c) { c.flags = kOpenFollow; }));  // without a time
  CHECK(broken([](Command& c) { c.quiet_ms = 1; }));
  CHECK(broken([](Command& c) { c.flags = kOpenFollow | kOpenStatOnly, c.quiet_ms = 1; }));
  CHECK(broken([](Command& c) {
    c.flags = kOpenFollow;
    c.quiet_ms = 1;
    c.cache = CachePolicy::kDirect;
  }));
  CHECK(broken([](Command& c) { c.reserved[1] = 1; }));
}

TEST_CASE("command: any 64 bytes can be judged") {
  std::mt19937_64 random(Catch::rngSeed());
  std::uint64_t accepted = 0;
  for (int i = 0; i < 100'000; ++i) {
    Command command;
    std::uint64_t words[8];
    for (auto& word : words) word = random() >> (random() % 64);
    std::memcpy(&command, words, sizeof(command));
    const auto offence = offence_of(command, 16);
    if (offence) continue;
    ++accepted;
    REQUIRE(command.stream < 16);
    REQUIRE((command.opcode == Opcode::kClose || command.opcode == Opcode::kFinish ||
             (command.flags & kOpenToEnd) != 0 || command.begin < command.end));
  }
  INFO("accepted " << accepted);
}

}  // namespace
}  // namespace nvr::shm
