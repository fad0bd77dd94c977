#include "tests/support/environment.h"

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>

namespace nvr::test {
namespace {

std::uint64_t make_seed() {
  if (const char* const given = std::getenv("NVR_TEST_SEED")) return std::strtoull(given, nullptr, 0);
  return std::random_device{}();
}

std::string& engine() {
  static std::string name = [] {
    const char* const given = std::getenv("NVR_ENGINE");
    return std::string(given != nullptr && *given != '\0' ? given : "mmap");
  }();
  return name;
}

// FNV-1a: the same everywhere, which std::hash need not be.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

}  // namespace

std::uint64_t test_seed() {
  static const std::uint64_t seed = make_seed();
  return seed;
}

Random& test_random() {
  static Random random;
  return random;
}

void restart_random(std::string_view test_case) {
  test_random().seed(test_seed() ^ hash_of(test_case));
}

std::uint64_t pick(Random& random, std::uint64_t low, std::uint64_t high) {
  return std::uniform_int_distribution<std::uint64_t>(low, high)(random);
}

const std::string& engine_under_test() {
  return engine();
}
void set_engine_under_test(std::string name) {
  engine() = std::move(name);
}
unsigned engine_depth() {
  return engine() == "mmap" ? 1 : 64;  // daemon::kMaxOperations
}

void skip_or_fail(std::string_view reason) {
  std::fprintf(stderr, "\nSKIPPED: %.*s\n\n", static_cast<int>(reason.size()), reason.data());
  const char* const ci = std::getenv("CI");
  if (ci != nullptr && std::string_view(ci) == "true")
    throw TestFailure("skipped, which is a failure with CI=true: " + std::string(reason));
  SUCCEED("skipped: " << reason);  // --warn NoAssertions
}

}  // namespace nvr::test
