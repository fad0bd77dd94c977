// `nvr-readerctl top`: looks at a daemon over and over. On a terminal it paints one screen, and `q` ends it;
// else it prints what it sees once per interval.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "nvr/error.h"
#include "tools/ctl/stream_table.h"

namespace nvr::tools {

struct TopOptions {
  std::string socket_path;
  std::chrono::milliseconds timeout{1000};  // of each question
  std::chrono::milliseconds interval{1000};
  std::uint64_t count = 0;  // how often to look; 0: until it is ended
  bool as_json = false;     // a line per look, and never a screen
  ProcessNames process_of;
};

// Returns the exit code once somebody has ended it; an error when the first look fails. A daemon that goes
// away later is waited for. The terminal is as it was, whatever ended this.
[[nodiscard]] Result<int> top(const TopOptions& options);

}  // namespace nvr::tools
