// The entry of libFuzzer, compiled once for each target (NVR_FUZZ_TARGET); tests/fuzz/run builds and runs
// them. Prints at the end how many inputs got how far.
#include <cstdio>
#include <cstdlib>
#include <map>

#include "tests/fuzz/target.h"

namespace {

struct Depths {
  std::map<std::string, std::uint64_t, std::less<>> inputs;
  ~Depths() {
    for (const auto& [what, count] : inputs)
      std::fprintf(stderr, "reached %9llu %s\n", static_cast<unsigned long long>(count), what.c_str());
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size);

int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static Depths depths;
  nvr::test::Judgement judgement;
  nvr::test::NVR_FUZZ_TARGET.run(std::as_bytes(std::span(data, size)), judgement);
  for (const std::string& what : judgement.reached()) ++depths.inputs[what];
  if (judgement.problem().empty()) return 0;
  std::fprintf(stderr, "PROBLEM: %s\n", judgement.problem().c_str());
  abort();
}
