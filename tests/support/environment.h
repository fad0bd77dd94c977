// What the surroundings of a test run say: the seed, the engine under test, sanitizers, CI. Any thread.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>

#include "tools/lab/failure.h"
#include "tools/lab/wait.h"

namespace nvr::test {

using namespace lab;

// What a helper throws when it cannot do its work; Catch reports it as the test case's failure.
using TestFailure = lab::Failure;

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

}  // namespace nvr::test
