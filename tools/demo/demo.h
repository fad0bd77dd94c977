// The demonstration: viewers on two disks, one of which stalls for a while.
#pragma once

#include <cstdint>
#include <string>

namespace nvr::demo {

struct Options {
  std::string engine = "mmap";
  std::string csv_path = "build/demo-stall.csv";
  std::uint32_t viewers = 8;  // of each disk
  double rate_mb_s = 2;
  double before_s = 10, stall_s = 20, after_s = 15;
};

// True: everybody got every byte, or the reason why not, in time. It says what was not so.
[[nodiscard]] bool run(const Options& options);

}  // namespace nvr::demo
