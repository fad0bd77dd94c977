// Sets of a window's slots, a bit each: a window has at most 64.
#pragma once

#include <cstdint>

namespace nvr::daemon {

constexpr std::uint64_t bit(std::uint32_t slot) {
  return std::uint64_t{1} << slot;
}
constexpr std::uint64_t all_of(std::uint32_t slots) {
  return slots == 64 ? ~std::uint64_t{0} : bit(slots) - 1;
}

}  // namespace nvr::daemon
