// One viewer: a process of its own that plays a recording at a steady rate, checks every byte, and reports
// how it fares four times a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <type_traits>

#include "tools/lab/process.h"
#include "tools/lab/recording_file.h"

namespace nvr::demo {

using SteadyClock = std::chrono::steady_clock;

constexpr auto kTick = std::chrono::milliseconds(250);
// How long a viewer waits for a chunk before it wants to know why.
constexpr auto kDeadline = std::chrono::milliseconds(250);

struct ViewerSetup {
  std::uint32_t number = 0;
  std::string socket;  // of the daemon; empty: reads the file by itself
  const lab::RecordingFile& file;
  std::uint64_t bytes_per_s = 0;
  SteadyClock::time_point start;  // of the playback
};

// What a viewer writes to its pipe. Small enough for writes to be atomic.
struct Report {
  enum class Kind : std::uint32_t { kProgress, kFinal };
  Kind kind = Kind::kProgress;
  std::uint32_t viewer = 0;
  std::uint32_t tick = 0;      // since the start, of kTick each; kFinal: the last
  std::uint32_t informed = 0;  // DeadlineExceeded; kFinal: in all
  std::uint64_t bytes = 0;     // kFinal: in all, each one right
  std::uint64_t longest_wait_us = 0;
  char text[280] = {};  // kFinal: what went wrong, or else the last thing that it was told while it waited
  std::uint32_t failed = 0;  // kEnd
  std::uint32_t reserved = 0;
};
static_assert(sizeof(Report) <= 512 && std::is_trivially_copyable_v<Report>);

// Starts it. Reports go to `pipe`. Call before there are threads.
[[nodiscard]] lab::Process start_viewer(const ViewerSetup& setup, int pipe);

}  // namespace nvr::demo
