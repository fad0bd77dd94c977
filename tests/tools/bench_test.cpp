// The bench's own arithmetic: a figure that is wrong there is believed here.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "tests/support/temp_dir.h"
#include "tools/bench/chart.h"
#include "tools/bench/histogram.h"
#include "tools/bench/text_files.h"

namespace nvr::bench {
namespace {

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

TEST_CASE("chart: a bar for each value that is there, none for those that are not") {
  Chart chart = {.title = "a title", .series = {}, .groups = {}};
  chart.add("1", "pread", 10);
  chart.add("1", "seed", 5);
  chart.add("16", "nvr_mmap", 20);
  REQUIRE(chart.groups.size() == 2);
  CHECK(chart.groups[0].values == std::vector<double>{10, 5, 0});
  CHECK(chart.groups[1].values == std::vector<double>{0, 0, 20});
  const test::TempDir directory;
  const std::string path = directory / "chart.svg";
  REQUIRE(write_charts({chart}, path).has_value());
  const std::string svg = text_of(path);
  CHECK(svg.starts_with("<svg "));
  CHECK(svg.ends_with("</svg>\n"));
  std::size_t rectangles = 0;
  for (std::size_t at = 0; (at = svg.find("<rect ", at)) != std::string::npos; ++at) ++rectangles;
  CHECK(rectangles == 1 + 3 + 3);  // the ground, the legend, the bars
}

}  // namespace
}  // namespace nvr::bench
