// The bench's own arithmetic: a figure that is wrong there is believed here.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "tools/bench/histogram.h"
#include "tools/bench/progress.h"
#include "tools/bench/report.h"

namespace nvr::bench {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

TEST_CASE("histogram: small values are exact, and large ones within 1.6 %") {
  Histogram histogram;
  for (std::uint64_t value = 0; value < 128; ++value) histogram.add(value);
  CHECK(histogram.percentile(0.5) == 63);
  CHECK(histogram.percentile(1) == 127);
  for (const std::uint64_t value : {128UL, 1000UL, 123'456UL, 59'999'999'999UL}) {
    Histogram one;
    one.add(value);
    CHECK(one.percentile(0.5) >= value);
    CHECK(static_cast<double>(one.percentile(0.5)) <= 1.016 * static_cast<double>(value));
  }
}

TEST_CASE("histogram: percentiles are those of the sorted values") {
  const auto seed = static_cast<unsigned>(Catch::rngSeed());
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  std::vector<std::uint64_t> values(10'000);
  Histogram halves[2];
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = random() >> (random() % 34 + 30);
    halves[i % 2].add(values[i]);
  }
  halves[0].add_all(halves[1]);
  std::ranges::sort(values);
  REQUIRE(halves[0].count() == values.size());
  for (const double part : {0.01, 0.5, 0.99, 0.999}) {
    const auto exact =
        static_cast<double>(values[static_cast<std::size_t>(part * static_cast<double>(values.size())) - 1]);
    CHECK(static_cast<double>(halves[0].percentile(part)) >= exact);
    CHECK(static_cast<double>(halves[0].percentile(part)) <= 1.016 * exact + 1);
  }
}

TEST_CASE("histogram: nothing, and what is too large for it") {
  Histogram histogram;
  CHECK(histogram.percentile(0.5) == 0);
  histogram.add(UINT64_MAX);
  CHECK(histogram.percentile(0.5) > 60'000'000'000);
}

Samples samples_of(std::vector<double> gb_per_s) {
  Samples samples;
  for (const double speed : gb_per_s) samples.add(Flow{.gb_per_s = speed, .cpu_s_per_gb = 1 / speed});
  return samples;
}

TEST_CASE("a row has the medians of its rounds, the least and the most, and percentiles of what was timed") {
  Samples samples = samples_of({4, 1, 2});
  for (std::uint64_t us = 1; us <= 100; ++us) samples.ns.add(us * 1000);
  samples.add("jain", 0.5);
  samples.add("jain", 0.7);
  const Row row = to_row("hot", "", "pread", 16, samples);
  CHECK(row.gb_per_s.median == 2);
  CHECK(row.gb_per_s.min == 1);
  CHECK(row.gb_per_s.max == 4);
  REQUIRE(row.latency.has_value());
  CHECK(row.latency->p50_us == Approx(50).epsilon(0.016));
  CHECK(row.latency->p99_us == Approx(99).epsilon(0.016));
  CHECK(row.latency->p999_us == 0);  // of a hundred
  REQUIRE(row.figures.size() == 1);
  CHECK(row.figures[0].second == Approx(0.6));
  CHECK(to_row("hot", "", "pread", 16, samples_of({1, 2})).gb_per_s.median == 1.5);
  CHECK(Samples().empty());
}

TEST_CASE("fairness is 1 when all have got the same, and one part of them when one has got all") {
  CHECK(fairness_of({3, 3, 3}) == Approx(1));
  CHECK(fairness_of({9, 0, 0}) == Approx(1.0 / 3));
  CHECK(fairness_of({0, 0}) == 0);
}

TEST_CASE("the table has a column for what was measured, ratios to the references, and none for the rest") {
  const std::vector<Row> rows = {to_row("hot", "", "pread", 1, samples_of({2})),
                                 to_row("hot", "", "nvr_mmap", 1, samples_of({5})),
                                 to_row("hot", "", "nvr_mmap", 4, samples_of({6}))};
  const std::string table = table_of(rows, {"pread"});
  CHECK_THAT(table, Contains("GB/s (min..max)") && Contains("5.00 (5.00..5.00)") && Contains("2.50x"));
  CHECK_THAT(table, !Contains("ops/s") && !Contains("p50") && !Contains("part"));
  CHECK_THAT(table_of(rows, {}), !Contains("/pread"));
}

TEST_CASE("a target is met or not by the bound itself, and what was not measured is not required") {
  const std::vector<Row> rows = {to_row("hot", "", "pread", 1, samples_of({2})),
                                 to_row("hot", "", "nvr_mmap", 1, samples_of({4}))};
  std::vector<Target> targets;
  Referee referee(rows, "nvr_mmap", targets);
  const double twice = referee.ours(1, "gb_per_s") / referee.value("pread", 1, "gb_per_s");
  referee.at_least(2, "GB/s / pread", twice);
  referee.at_most(2, "GB/s / pread", twice);
  referee.below(2, "GB/s / pread", twice);
  referee.at_least(3, "GB/s / pread", twice);
  referee.at_least(2, "GB/s / seed", referee.ours(1, "gb_per_s") / referee.value("seed", 1, "gb_per_s"));
  REQUIRE(targets.size() == 4);
  CHECK(targets[0].what == "nvr_mmap: GB/s / pread");
  CHECK(targets[0].measured == 2);
  CHECK(targets[0].met());
  CHECK(targets[1].met());
  CHECK_FALSE(targets[2].met());
  CHECK_FALSE(targets[3].met());
}

TEST_CASE("JSON has an object for each row, with null for what there is none of") {
  Samples samples = samples_of({2});
  samples.add("jain", std::numeric_limits<double>::quiet_NaN());
  samples.add("share", 0.5);
  nlohmann::ordered_json list;
  append_json({to_row("disk", "throughput", "seed", 4, samples)}, list);
  const auto row = nlohmann::json::parse(list.dump()).at(0);
  CHECK(row.at("scenario") == "disk");
  CHECK(row.at("part") == "throughput");
  CHECK(row.at("system") == "seed");
  CHECK(row.at("streams") == 4);
  CHECK(row.at("gb_per_s") == 2);
  CHECK(row.at("cpu_s_per_gb") == 0.5);
  CHECK(row.at("ops_per_s") == 0);
  CHECK(row.at("p50_us").is_null());
  CHECK(row.at("p99_us").is_null());
  CHECK(row.at("jain").is_null());
  CHECK(row.at("share") == 0.5);
}

TEST_CASE("progress believes its guess at first, and then what has been done") {
  Progress progress(100);
  CHECK(progress.remaining_s(0) == Approx(100));
  progress.advance(50);
  CHECK(progress.remaining_s(50) == Approx(50));
  CHECK(progress.remaining_s(290) == Approx(250));  // five times as slow
  progress.advance(70);
  CHECK(progress.remaining_s(700) == 0);
}

TEST_CASE("progress is a line for each thing that begins where it is not a terminal") {
  char* text = nullptr;
  std::size_t length = 0;
  const std::unique_ptr<FILE, decltype(&std::fclose)> out(std::tmpfile(), &std::fclose);
  Progress progress(65, out.get());
  progress.say("hot: 1 stream of pread, round 1 of 7");
  progress.clear();
  progress.say("hot: 1 stream of seed, round 1 of 7");
  std::rewind(out.get());
  REQUIRE(getline(&text, &length, out.get()) > 0);
  CHECK_THAT(text, StartsWith("hot: 1 stream of pread, round 1 of 7 | 0:00 gone, about 1:05 to go\n"));
  REQUIRE(getline(&text, &length, out.get()) > 0);
  CHECK_THAT(text, StartsWith("hot: 1 stream of seed"));
  CHECK(getline(&text, &length, out.get()) < 0);
  std::free(text);
}

}  // namespace
}  // namespace nvr::bench
