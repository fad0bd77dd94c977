// tools/demo-stall and tools/soak, in short. Both judge by themselves, so what is tested is that they end
// well.
#include <stdlib.h>

#include <catch2/catch.hpp>
#include <fstream>

#include "tests/support/environment.h"
#include "tests/support/laboratory.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

// For programs that take seconds, and on a busy machine minutes.
ProgramResult run_to_the_end(const std::vector<std::string>& argv) {
  const Capture output;
  const Capture errors;
  Process process = spawn({.argv = argv}, output.fd(), errors.fd());
  const auto exit = process.wait(std::chrono::minutes(4));
  if (!exit) throw TestFailure(argv.at(1) + " does not end; it said: " + output.text() + errors.text());
  return {.exit = *exit, .output = output.text(), .errors = errors.text()};
}

TEST_CASE("the demonstration of a disk that stalls ends as promised, and writes what happened") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  const TempDir directory;
  const std::string csv = directory / "figures.csv";
  setenv("NVR_BUILD", NVR_TEST_BUILD, 1);
  const ProgramResult result =
      run_to_the_end({"/bin/bash", NVR_TEST_DEMO_STALL, "--engine", engine_under_test(), "--before", "2",
                      "--stall", "4", "--after", "2", "--viewers", "3", "--rate", "5", "--csv", csv});
  INFO(result.output + result.errors);
  REQUIRE(result.exit == Exit{.code = 0, .signal = {}});
  CHECK_THAT(result.output, Contains("Longest uninterruptible sleep of any client thread: "));
  CHECK_THAT(result.output, Contains("B3 ") && Contains("exact") && Contains("stuck for"));
  std::ifstream file(csv);
  const std::string written((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  CHECK_THAT(written,
             Contains("stall_from_s=2 stall_until_s=6") && Contains("\nA3,A,0,") && Contains("\nB1,B,0,"));
  CHECK_THAT(written, Contains("\nA itself,A,1,"));
}

TEST_CASE("a soak of random faults, clients and kills finds every byte right and nothing left behind") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  setenv("NVR_BUILD", NVR_TEST_BUILD, 1);
  const ProgramResult result = run_to_the_end({"/bin/bash", NVR_TEST_SOAK, "--minutes", "0.15", "--engine",
                                               engine_under_test(), "--seed", std::to_string(test_seed())});
  INFO(result.output + result.errors);
  CHECK(result.exit == Exit{.code = 0, .signal = {}});
  CHECK_THAT(result.output, Contains("Every byte right, every error with its reason, nothing left behind."));
}

}  // namespace
}  // namespace nvr::test
