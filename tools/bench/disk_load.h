// Streams on one disk for a window of time: some take what they get, some are viewers that take what they
// show. Each has a thread of its own, reads a range of its own from its begin, and its bytes are checked.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "tools/bench/system.h"

namespace nvr::bench {

struct DiskStream {
  FileRange range;
  double bytes_per_s = 0;  // of a viewer; 0: as much as it gets
  // Where to go on at the end of the range: the files first..last, in a circle, each dropped from the page
  // cache after it was read. Otherwise the end of the range ends the window.
  struct Circle {
    std::size_t first = 0;
    std::size_t last = 0;
    bool stays_cached = false;  // it is not dropped
  };
  std::optional<Circle> circle = {};
};

struct DiskStreamResult {
  std::uint64_t bytes = 0;      // within the window, after the run-up
  std::uint64_t underruns = 0;  // how often a viewer had nothing to show; 1 if it never began to
  double stalled_s = 0;         // for how long altogether
};

struct DiskLoadResult {
  double seconds = 0;  // the window without the run-up
  std::vector<DiskStreamResult> streams;

  [[nodiscard]] double mb_per_s() const;  // of all, 10^6 bytes
  [[nodiscard]] double jain() const;      // fairness of their bytes: 1 when all got the same
  [[nodiscard]] std::uint64_t underruns() const;
  [[nodiscard]] double stalled_s() const;
};

// Stream i of the system is streams[i]. The window is `seconds`, or less when a recording comes to its end or
// somebody presses ^C; of it the first `run_up_s` do not count, in which all streams are opened. With
// `opener`, further opens are measured meanwhile, each range once.
struct Opener {
  std::size_t stream = 0;  // of the system: none of the others
  std::vector<FileRange> ranges = {};
  std::chrono::milliseconds pause{
      1000};                    // from one to the next, or until it has come: as many with any system
  std::vector<double> ms = {};  // what came out: from open() to the first chunk's bytes
};
[[nodiscard]] Result<DiskLoadResult> run_disk_load(System& system, const FileSet& files,
                                                   const std::vector<DiskStream>& streams, double seconds,
                                                   Opener* opener = nullptr, double run_up_s = 0);

}  // namespace nvr::bench
