// Waiting for what must become true, with a bound that says "never" rather than "late".
#pragma once

#include <chrono>
#include <thread>

#include "tests/support/environment.h"

namespace nvr::test {

inline constexpr std::chrono::seconds kLongEnough{scaled(30, 120)};

// True as soon as `condition()` is; false when it is not within `bound`.
template <class Condition>
[[nodiscard]] bool wait_until(Condition&& condition, std::chrono::milliseconds bound = kLongEnough) {
  const auto deadline = std::chrono::steady_clock::now() + bound;
  auto pause = std::chrono::microseconds(200);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return condition();
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(10'000));
  }
  return true;
}

}  // namespace nvr::test
