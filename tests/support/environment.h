// What the surroundings of a test run say: the seed, the engine under test, sanitizers, CI. Any thread.
#pragma once

#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>

namespace nvr::test {

#if defined(__has_feature)
#define NVR_TEST_HAS_FEATURE(feature) __has_feature(feature)
#else
#define NVR_TEST_HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    NVR_TEST_HAS_FEATURE(address_sanitizer) || NVR_TEST_HAS_FEATURE(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// A count or a bound that a build with sanitizers cannot do as many of, or as fast.
template <class T>
constexpr T scaled(T normal, T sanitized) {
  return kSanitized ? sanitized : normal;
}

// What a helper throws when it cannot do its work; Catch reports it as the test case's failure.
class TestFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The seed of this run: NVR_TEST_SEED if set, else a new one. Printed at the start of every test case.
[[nodiscard]] std::uint64_t test_seed();

using Random = std::mt19937_64;

// The running test case's generator: depends on the seed and the test case's name, so that a test case alone
// replays what it did in a run of all. Test thread only.
[[nodiscard]] Random& test_random();
void restart_random(std::string_view test_case);

// A number in [low, high].
[[nodiscard]] std::uint64_t pick(Random& random, std::uint64_t low, std::uint64_t high);

// The engine that the daemons of this run use: --engine on the test program's command line, or NVR_ENGINE, or
// mmap.
[[nodiscard]] const std::string& engine_under_test();
void set_engine_under_test(std::string engine);
// How many operations that engine can have on the disk at a time.
[[nodiscard]] unsigned engine_depth();

// Something that a test needs is missing on this machine. Says so loudly; where CI is set to "true", throws.
// Use: `if (auto reason = ...) return skip_or_fail(*reason);`
void skip_or_fail(std::string_view reason);

// What was found wrong where nothing can be thrown (in destructors): makes the test program fail at its end.
void report_late_failure(std::string_view what);
[[nodiscard]] bool has_late_failures();

}  // namespace nvr::test
