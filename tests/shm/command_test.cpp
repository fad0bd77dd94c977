// Judging commands: what is an offence and what is not.
#include "shm/command.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <iterator>
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

// The rules once more, in the protocol's numbers.
bool is_well_formed(const Command& c, std::uint32_t streams) {
  const auto opcode = static_cast<std::uint32_t>(c.opcode);
  if (c.stream >= streams || opcode < 1 || opcode > 3) return false;
  if (std::ranges::count(c.reserved, std::uint64_t{0}) != std::ssize(c.reserved)) return false;
  if (c.opcode != Opcode::kOpen) return true;
  const bool to_end = (c.flags & kOpenToEnd) != 0;
  const bool follows = (c.flags & kOpenFollow) != 0;
  const bool stat_only = (c.flags & kOpenStatOnly) != 0;
  return static_cast<std::uint32_t>(c.priority) <= 3 && static_cast<std::uint32_t>(c.cache) <= 2 &&
         c.flags <= (kOpenToEnd | kOpenFollow | kOpenStatOnly) && follows == (c.quiet_ms > 0) &&
         (!follows || (!stat_only && c.cache != CachePolicy::kDirect)) &&
         (to_end ? c.end == 0 : c.begin < c.end);
}

TEST_CASE("command: any mix of good and bad fields is accepted exactly if all rules are kept") {
  std::mt19937 random(Catch::rngSeed());
  const auto pick = [&](std::uint32_t most) { return static_cast<std::uint32_t>(random() % (most + 1)); };
  // Mostly good, sometimes just beyond.
  const auto up_to = [&](std::uint32_t most) { return pick(15) == 0 ? most + 1 : pick(most); };
  int opens = 0;
  int others = 0;
  int refused = 0;
  for (int i = 0; i < 100'000; ++i) {
    Command c;
    c.opcode = static_cast<Opcode>(up_to(3));
    c.stream = up_to(15);
    c.generation = pick(UINT32_MAX - 1);
    c.priority = static_cast<Priority>(up_to(3));
    c.cache = static_cast<CachePolicy>(up_to(2));
    c.flags = static_cast<decltype(c.flags)>(up_to(7));
    c.quiet_ms = pick(1);
    c.begin = pick(2);
    c.end = pick(3);
    if (pick(31) == 0) c.reserved[pick(static_cast<std::uint32_t>(std::size(c.reserved)) - 1)] = 1;
    CAPTURE(c.opcode, c.stream, c.priority, c.cache, c.flags, c.quiet_ms, c.begin, c.end);
    const bool is_accepted = !offence_of(c, 16);
    REQUIRE(is_accepted == is_well_formed(c, 16));
    ++(!is_accepted ? refused : c.opcode == Opcode::kOpen ? opens : others);
  }
  CHECK(opens > 1000);
  CHECK(others > 1000);
  CHECK(refused > 1000);
}

}  // namespace
}  // namespace nvr::shm
