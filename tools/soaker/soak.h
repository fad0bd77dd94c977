// The soak: daemons on a disk that errs at random, clients that do what they like and are killed in the
// middle of it. Every byte is compared, every error must have its reason, and in the end the daemons must be
// as they were before.
#pragma once

#include <cstdint>
#include <string>

namespace nvr::soak {

struct Options {
  std::string engine = "both";
  double minutes = 10;
  std::uint64_t seed = 0;
  std::uint32_t clients = 4;  // of each daemon
};

// True: all was as it must be. It says what was not.
[[nodiscard]] bool run(const Options& options);

}  // namespace nvr::soak
