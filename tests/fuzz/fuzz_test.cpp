// The fuzz targets without a fuzzer: the kept corpus of each, which reaches every depth that the target
// names, and some random inputs. A random input that fails prints its seed; NVR_FUZZ_SEED=N replays it.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>

#include "tests/fuzz/hostile_client.h"
#include "tests/fuzz/target.h"
#include "tests/support/environment.h"
#include "tests/support/proc.h"

namespace nvr::test {
namespace {

const FuzzTarget* const kTargets[] = {&command_target,        &configuration_target,  &daemon_message_target,
                                      &hostile_client_target, &hostile_daemon_target, &http_target,
                                      &message_target,        &name_target,           &order_target,
                                      &range_target};

std::vector<std::filesystem::path> corpus_of(const FuzzTarget& target) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(NVR_TEST_CORPUS) + "/" + target.name))
    files.push_back(entry.path());
  return files;
}

std::vector<std::byte> random_bytes(std::uint64_t seed) {
  Random random(seed);
  std::vector<std::byte> bytes(pick(random, 1, 1500));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST_CASE("fuzz: the kept inputs reach every depth of their decoders, and nothing is wrong there") {
  const FuzzTarget& target = *GENERATE(from_range(std::begin(kTargets), std::end(kTargets)));
  CAPTURE(target.name);
  std::set<std::string, std::less<>> reached;
  for (const auto& file : corpus_of(target)) {
    Judgement judgement;
    const std::string text = read_file(file);
    target.run(std::as_bytes(std::span(text)), judgement);
    CAPTURE(file);
    CHECK(judgement.problem() == "");
    reached.insert(judgement.reached().begin(), judgement.reached().end());
  }
  for (const std::string_view depth : target.depths) {
    CAPTURE(depth);
    CHECK(reached.contains(depth));
  }
}

TEST_CASE("fuzz: random inputs") {
  const char* const wanted = std::getenv("NVR_FUZZ_SEED");
  for (const FuzzTarget* const target : kTargets) {
    for (int i = 0; i < (wanted != nullptr ? 1 : scaled(1000, 200)); ++i) {
      const std::uint64_t seed = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : test_random()();
      Judgement judgement;
      target->run(random_bytes(seed), judgement);
      if (!judgement.problem().empty())
        FAIL(target->name << ", NVR_FUZZ_SEED=" << seed << ": " << judgement.problem());
    }
  }
  SUCCEED();
}

TEST_CASE("fuzz: random programs of hostile clients get somewhere") {
  Verdict all;
  for (int i = 0; i < scaled(2000, 400); ++i) {
    const Verdict verdict = run_program(random_bytes(test_random()()));
    REQUIRE(verdict.problem == "");
    all.chunks += verdict.chunks;
    all.served += verdict.served;
    all.offences.insert(all.offences.end(), verdict.offences.begin(), verdict.offences.end());
  }
  CHECK(all.chunks > 700);
  CHECK(all.offences.size() > 70);
  CHECK(all.served > 700);
}

TEST_CASE("fuzz: damage to what the well-behaved client reads is noticed") {
  int noticed = 0;
  for (int i = 0; i < 50; ++i) {
    const Verdict verdict = run_program(random_bytes(test_random()()), true);
    noticed += verdict.problem.find("wrong bytes") != std::string::npos ? 1 : 0;
  }
  CHECK(noticed > 10);
}

}  // namespace
}  // namespace nvr::test
