// The entry of libFuzzer. One source, two programs: fuzz_decode and fuzz_hostile_client (NVR_FUZZ_DECODE says
// which); tests/hostile/run builds and runs them.
#include <cstdio>
#include <cstdlib>

#include "tests/hostile/decode.h"
#include "tests/hostile/world.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size);

int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
#ifdef NVR_FUZZ_DECODE
  const std::string problem = nvr::test::problem_decoding(bytes);
#else
  const std::string problem = nvr::test::run_program(bytes).problem;
#endif
  if (problem.empty()) return 0;
  std::fprintf(stderr, "PROBLEM: %s\n", problem.c_str());
  abort();
}
