// Chance that is the same everywhere: the standard's distributions may differ between libraries. Any thread.
#pragma once

#include <cstdint>
#include <random>

namespace nvr::slowdisk {

// In [0, 1).
[[nodiscard]] inline double chance(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

}  // namespace nvr::slowdisk
