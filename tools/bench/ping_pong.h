// What it takes to wake another process: one word or one byte back and forth between this process and a child
// that does nothing else, by a futex in shared memory or by two eventfds. The measure of what no daemon can
// be faster than, whose clients sleep.
#pragma once

#include <chrono>
#include <cstddef>

#include "nvr/error.h"
#include "tools/bench/histogram.h"

namespace nvr::bench {

enum class Wake { kFutex, kEventfd };

// Half of each round trip, in ns: one wake. Forks. Before each round trip both sleep for `pause`.
[[nodiscard]] Result<Histogram> measure_wakes(Wake wake, std::size_t count, std::chrono::nanoseconds pause);

}  // namespace nvr::bench
