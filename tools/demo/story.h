// What has happened, as the viewers reported it: kept by tick, told as a timeline of letters and as a plot.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tools/demo/viewer.h"

namespace nvr::demo {

struct Teller {      // one viewer
  std::string name;  // "A1"
  std::string disk;  // "A"
  bool by_itself = false;
  std::vector<Report> ticks;  // one per kTick, also where nothing was reported
  Report end;
  bool has_ended = false;
  std::chrono::milliseconds uninterruptible{0};
};

struct Story {
  std::string engine;
  std::uint64_t bytes_per_s = 0;  // what each viewer plays
  double stall_from_s = 0;        // of disk A
  double stall_until_s = 0;
  double length_s = 0;
  std::vector<Teller> viewers;

  void take(const Report& report);
};

// One letter a second for each viewer, and what it came to.
[[nodiscard]] std::string timeline(const Story& story);

// Bytes and longest wait of each viewer over time: for tools/demo/plot.
[[nodiscard]] std::string csv(const Story& story);

}  // namespace nvr::demo
