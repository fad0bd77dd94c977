// The daemon's log, on stderr: for people on a terminal or in a file; for the journal, if that is where
// stderr goes, without what the journal knows itself. Control thread only. Nothing here waits for the reader
// of stderr: lines go through a LogQueue.
#pragma once

#include <spdlog/spdlog.h>

#include <cstdint>
#include <string>
#include <utility>

#include "daemon/log_limiter.h"
#include "daemon/sandbox.h"
#include "nvr/error.h"

namespace nvr::daemon {

// Once, before anything is logged, with the signals blocked that the log's thread is to block. `level`: as
// --log-level has it. `confine`: that thread gives up what it does not need.
[[nodiscard]] Result<void> set_up_log(const std::string& level, bool confine);

// How far the log's thread is confined.
[[nodiscard]] Confinement log_confinement();

// Why the daemon ends without having served: said at every log level. finish_log() included.
void say_why_it_ends(const std::string& why);

// At the end of the process: gives the reader of stderr a moment to take what is left, and no more.
void finish_log();

// Lines that the reader of stderr was too slow for, or that could not be written.
[[nodiscard]] std::uint64_t lost_lines();

[[nodiscard]] bool admits_line(LogKind kind);

// A line of which there may be any number: beyond LogLimiter's bounds it is left out.
template <class... Args>
void log_some(LogKind kind, spdlog::level::level_enum level, spdlog::format_string_t<Args...> format,
              Args&&... args) {
  if (spdlog::should_log(level) && admits_line(kind)) spdlog::log(level, format, std::forward<Args>(args)...);
}

// Says how many lines were left out, where it is time to. next_left_out_ns(): when to call again, at the
// latest (UINT64_MAX: no need).
void log_left_out();
[[nodiscard]] std::uint64_t next_left_out_ns();

}  // namespace nvr::daemon
