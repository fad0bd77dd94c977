// nvr-slowdisk's command line.
#pragma once

#include <string>

#include "tools/slowdisk/disk.h"

namespace nvr::slowdisk {

struct Options {
  enum class Command { kServe, kOrder };
  Command command = Command::kServe;

  // serve
  std::string source;  // an image file or a directory
  std::string mountpoint;
  std::string log;
  std::uint64_t capacity_bytes = 0;  // 0: an image's size, or a terabyte
  bool direct_io = false;
  bool forget_at_open = false;
  DiskOptions disk;

  // order
  std::string order;
  std::string mounted_at;

  std::string control;  // both; may be empty for serve
};

// The options, or the code to exit with: everything that had to be said has been.
[[nodiscard]] tl::expected<Options, int> parse_options(int argc, char** argv);

}  // namespace nvr::slowdisk
