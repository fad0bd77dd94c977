// Sizes and times as people write them on command lines and in orders. Pure; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "nvr/error.h"

namespace nvr::slowdisk {

// A reading of CLOCK_MONOTONIC, or a difference of two.
using Time = std::chrono::nanoseconds;

// "4096", "64K" and "64KiB" (1024 bytes each), "160MB" (1000 * 1000 bytes each), up to T. Digits only, no
// fraction.
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);
// "20s", "8.5ms", "150us", "2min", and "0". Never negative, at most a year; to the microsecond.
[[nodiscard]] Result<Time> parse_time(std::string_view text);
// "30%", "0.5%": between 0 and 1, to a millionth.
[[nodiscard]] Result<double> parse_percent(std::string_view text);

// As short as it can be said exactly: "65536" is "64K"; read back by parse_size().
[[nodiscard]] std::string size_text(std::uint64_t bytes);
// "8.5ms", "20s"; to the microsecond.
[[nodiscard]] std::string time_text(Time time);

}  // namespace nvr::slowdisk
