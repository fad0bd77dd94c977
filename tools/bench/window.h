// Streams that read for a window of time: some take what they get, some are viewers that take what they show.
// Each has a thread of its own, and its bytes are checked.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/bench/histogram.h"
#include "tools/bench/system.h"

namespace nvr::bench {

// Reads a range, and then the same range of the next file, in a circle.
struct WindowStream {
  FileRange range;
  std::size_t first_file = 0;  // of the circle
  std::size_t last_file = 0;
  bool stays_cached = false;  // otherwise a file is dropped from the page cache when it has been read
  double bytes_per_s = 0;     // of a viewer; 0: as much as it gets
};

struct WindowResult {
  double seconds = 0;                     // the window without the run-up
  std::vector<double> stream_bytes = {};  // of each within it
  std::uint64_t underruns = 0;            // how often viewers had nothing to show; one that never began to: 1
  double stalled_s = 0;                   // for how long altogether

  [[nodiscard]] double bytes() const;
};

// Further opens meanwhile, one a second, or when the one before has its first chunk: as many with any system.
struct Opener {
  std::vector<FileRange> ranges = {};  // each is opened once
  Histogram ns = {};                   // what came out: from open() to the first chunk's bytes
};

// Stream i of the system is streams[i]; the opener's is the one after them. The window is `seconds`, or less
// when somebody presses ^C; of it the first `run_up_s` do not count, in which all streams are opened.
[[nodiscard]] Result<WindowResult> run_window(System& system, const FileSet& files,
                                              const std::vector<WindowStream>& streams, double seconds,
                                              double run_up_s = 0, Opener* opener = nullptr);

}  // namespace nvr::bench
