// Explores everything that a world can do: every schedule, and for every load every store that it may read.
// Depth first, without a second visit to a state. States are told apart by 64 bits of a hash.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/proof/world.h"

namespace nvr::proof {

struct Finding {
  std::string what;
  std::vector<std::string> schedule;
};

struct Exploration {
  std::size_t states = 0;
  std::size_t steps = 0;
  std::size_t ends = 0;            // states in which nothing can happen any more
  std::optional<Finding> finding;  // the first; the exploration stops there
};

struct Rules {
  // Nothing can happen any more but in the threads of `stalled`: what is wrong with that, or null.
  std::function<const char*(const State&, ThreadMask stalled)> wrong_at_rest;
  ThreadMask may_stall = 0;  // these may be descheduled for ever, anywhere
  std::size_t max_states = 3'000'000;
  // One thread may be killed, anywhere.
  std::optional<std::size_t> victim;
  std::size_t death_object = 0;
  std::uint32_t death_flag = 0;
};

[[nodiscard]] Exploration explore(World& world, const Rules& rules);

}  // namespace nvr::proof
