// Waiting for what must become true, with a bound that says "never" rather than "late".
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

namespace nvr::lab {

#if defined(__has_feature)
#define NVR_LAB_HAS_FEATURE(feature) __has_feature(feature)
#else
#define NVR_LAB_HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    NVR_LAB_HAS_FEATURE(address_sanitizer) || NVR_LAB_HAS_FEATURE(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// A count or a bound that a build with sanitizers cannot do as many of, or as fast.
template <class T>
constexpr T scaled(T normal, T sanitized) {
  return kSanitized ? sanitized : normal;
}

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

}  // namespace nvr::lab
