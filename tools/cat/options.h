// nvr-cat's command line.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "nvr/client.h"

namespace nvr::tools {

struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = kToEnd;  // exclusive
};

struct CatOptions {
  std::string socket;
  OpenRequest request;
  std::optional<std::chrono::nanoseconds> timeout;  // for each chunk; none: waits as long as the disk takes
  std::chrono::milliseconds resume{0};              // how long to wait for a daemon that goes away meanwhile
};

// "START-END", or "START-" for what there is, in bytes. InvalidArgument when it is not that; OutOfRange when
// a number is beyond any file.
[[nodiscard]] Result<ByteRange> parse_range(std::string_view text);

// The options, or the code to exit with: everything that had to be said has been.
[[nodiscard]] tl::expected<CatOptions, int> parse_cat_options(int argc, char** argv);

}  // namespace nvr::tools
