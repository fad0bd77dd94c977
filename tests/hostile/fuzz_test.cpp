// The fuzzers' harnesses without a fuzzer: the corpus, which holds what was found before, and some seconds of
// random programs. A random program that fails prints its seed; NVR_HOSTILE_SEED=N replays it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>

#include "tests/hostile/decode.h"
#include "tests/hostile/world.h"
#include "tests/support/environment.h"
#include "tests/support/proc.h"

namespace nvr::test {
namespace {

std::vector<std::filesystem::path> corpus(const std::string& name) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(NVR_TEST_CORPUS) + "/" + name))
    files.push_back(entry.path());
  std::ranges::sort(files);
  return files;
}

std::vector<std::byte> bytes_of(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> random_bytes(std::uint64_t seed, std::size_t most) {
  Random random(seed);
  std::vector<std::byte> bytes(pick(random, 1, most));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST_CASE("fuzz_decode: the corpus and random bytes") {
  for (const auto& file : corpus("decode")) {
    CAPTURE(file);
    CHECK(problem_decoding(bytes_of(file)) == "");
  }
  for (int i = 0; i < scaled(100'000, 20'000); ++i) {
    const std::uint64_t seed = test_random()();
    const std::string problem = problem_decoding(random_bytes(seed, 400));
    if (!problem.empty()) FAIL("seed " << seed << ": " << problem);
  }
}

TEST_CASE("fuzz_hostile_client: the corpus") {
  std::uint64_t violations = 0;
  for (const auto& file : corpus("client")) {
    CAPTURE(file);
    const Verdict verdict = run_program(bytes_of(file));
    CHECK(verdict.problem == "");
    violations += verdict.violations;
  }
  CHECK(violations > 0);
}

TEST_CASE("fuzz_hostile_client: random programs") {
  const char* const wanted = std::getenv("NVR_HOSTILE_SEED");
  Verdict all;
  for (int i = 0; i < (wanted != nullptr ? 1 : scaled(3000, 600)); ++i) {
    const std::uint64_t seed = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : test_random()();
    const Verdict verdict = run_program(random_bytes(seed, 1500));
    if (!verdict.problem.empty()) FAIL("NVR_HOSTILE_SEED=" << seed << ": " << verdict.problem);
    all.chunks += verdict.chunks;
    all.violations += verdict.violations;
    all.served += verdict.served;
  }
  if (wanted == nullptr) {  // they do something
    CHECK(all.chunks > 1000);
    CHECK(all.violations > 100);
    CHECK(all.served > 1000);
  }
}

TEST_CASE("fuzz_hostile_client: damage to what the well-behaved client reads is noticed") {
  int noticed = 0;
  for (int i = 0; i < 50; ++i) {
    const Verdict verdict = run_program(random_bytes(test_random()(), 1500), true);
    noticed += verdict.problem.find("wrong bytes") != std::string::npos ? 1 : 0;
  }
  CHECK(noticed > 10);
}

}  // namespace
}  // namespace nvr::test
