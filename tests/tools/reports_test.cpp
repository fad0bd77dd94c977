// What nvr-readerctl makes of the daemon's answers: rates, the order and width of the table, suspect ranges.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tools/ctl/stall_report.h"
#include "tools/ctl/stream_table.h"
#include "tools/ctl/top_screen.h"

namespace nvr::tools {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;

json stream(int connection, double bytes, const char* waits_for, double waits_s) {
  return {{"connection", connection},
          {"stream", 0},
          {"generation", 1},
          {"pid", 10 + connection},
          {"uid", 1000},
          {"begin", 0},
          {"end", 1000},
          {"position", bytes},
          {"bytes", bytes},
          {"open_s", 2.0},
          {"waits_for", waits_for},
          {"waits_s", waits_s},
          {"state", "reading"},
          {"recording", "3/" + std::to_string(connection)}};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// As long as it looks: without what sets colours.
std::size_t width_of(std::string line) {
  for (std::size_t at; (at = line.find('\x1b')) != std::string::npos;)
    line.erase(at, line.find('m', at) - at + 1);
  return line.size();
}

TEST_CASE("rates come from two looks at the same stream, and of a new one from its opening") {
  RateMeter meter;
  json first = json::array({stream(1, 100, "reader", 0)});
  meter.rate(first, 10);
  CHECK(first[0]["rate"] == 50);
  json second = json::array({stream(1, 400, "reader", 0), stream(2, 30, "reader", 0)});
  meter.rate(second, 12);
  CHECK(second[0]["rate"] == 150);
  CHECK(second[1]["rate"] == 15);
  second[0]["generation"] = 2;  // the same place, another stream
  second[0]["bytes"] = 10;
  meter.rate(second, 13);
  CHECK(second[0]["rate"] == 5);
}

TEST_CASE("the rate of who has a chunk now and then is not nothing between two of them") {
  Speedometer meter;
  CHECK_FALSE(meter.look(0, 100).has_value());
  for (int second = 1; second <= 200; ++second) {  // a chunk of 60 each 6 s
    const auto rate = meter.look(second / 6 * 60, 100 + second);
    REQUIRE(rate.has_value());
    if (second >= 12) CHECK(*rate == Approx(10).margin(6));
  }
  CHECK(*meter.look(1980 + 60, 301) > 0);
  CHECK(*meter.look(1980 + 60, 350) == Approx(120.0 / 56).margin(1.5));  // still from before the last one
  CHECK(*meter.look(1980 + 60, 362) == 0);                               // after a minute it stands still
  CHECK_FALSE(meter.look(5, 363).has_value());                           // a daemon that was restarted
  CHECK(*meter.look(15, 364) == 10);
}

TEST_CASE("who waits longest for the disk comes first, then who is fastest") {
  json streams = json::array({stream(1, 900, "reader", 99), stream(2, 20, "disk", 1.5),
                              stream(3, 950, "disk", 0.01), stream(4, 10, "queue", 30)});
  RateMeter().rate(streams, 1);
  name_processes(streams, [](std::int64_t pid) { return pid == 12 ? "ev\x1b[2Jil" : "reader"; });
  const auto table = stream_table(streams);
  REQUIRE(table.size() == 4);
  CHECK_THAT(table[0].text, Contains("3/4") && Contains("queue 30.0s"));
  CHECK(table[0].is_alarming);
  CHECK_THAT(table[1].text, Contains("3/2") && Contains("disk 1.5s") && Contains("ev?[2Jil"));
  CHECK_THAT(table[2].text, Contains("3/3") && Contains("95%"));
  CHECK_FALSE(table[2].is_alarming);
  CHECK_THAT(table[3].text, Contains("3/1") && Contains("reader 1m39s"));
}

TEST_CASE("top keeps within the terminal, and says how many streams do not fit") {
  TopSample sample{.status = json::object(), .streams = json::object(), .trouble = {}};
  sample.streams["streams"] = json::array();
  for (int i = 0; i < 50; ++i) sample.streams["streams"].push_back(stream(i, i, "disk", i));
  for (const TopBounds bounds : {TopBounds{80, 24}, TopBounds{200, 60}, TopBounds{20, 8}, TopBounds{1, 1}}) {
    const auto lines = lines_of(top_screen(sample, bounds));
    CHECK(lines.size() <= bounds.rows);
    for (const std::string& line : lines) CHECK(width_of(line) <= bounds.columns);
  }
  CHECK_THAT(top_screen(sample, TopBounds{80, 24}), Contains("and 32 more streams") && Contains("3/49"));
  CHECK_THAT(top_screen(sample, TopBounds{80, 60}), !Contains("more streams"));
  const std::string plain = top_screen(sample, std::nullopt);
  CHECK_THAT(plain, !Contains("\x1b") && !Contains("more streams"));
  CHECK(lines_of(plain).size() == 5 + 50);
}

json operation(const char* what, const char* recording, std::int64_t offset, double took_s, int error) {
  return {{"operation", what},
          {"recording", recording},
          {"offset", offset},
          {"length", 65536},
          {"duration_s", took_s},
          {"errno", error},
          {"error", error != 0 ? json("bad") : json()},
          {"ended_s", 1e9},
          {"pid", 1},
          {"uid", 2}};
}

TEST_CASE("the stall log's suspects are ranges of recordings, those with errors first") {
  const json log = {
      {"slow_from_s", 1.0},
      {"total", 6},
      {"kept", 6},
      {"stuck", nullptr},
      {"operations",
       json::array({operation("read", "1/1", 100 << 20, 9, 0), operation("read", "1/1", 0, 3, 0),
                    operation("read", "2/2", 1 << 20, 0.1, 5),
                    operation("read", "2/2", (1 << 20) + 65536, 0.2, 5),
                    operation("read", "1/1", 65536, 2, 0), operation("open", "1/1", 0, 4, 0)})}};
  const auto lines = lines_of(stall_report(log, {}));
  REQUIRE(lines.size() > 8);
  CHECK_THAT(lines[3],
             Contains("2/2") && Contains("1,048,576 - 1,179,648") && Contains(" 2 ") && Contains("bad"));
  CHECK_THAT(lines[4], Contains("1/1") && Contains("104,857,600 - 104,923,136") && Contains("9.0 s"));
  CHECK_THAT(lines[5], Contains("1/1") && Contains("its open") && Contains("4.0 s"));
  CHECK_THAT(lines[6], Contains("1/1") && Contains("0 - 131,072") && Contains("3.0 s"));
  CHECK_THAT(lines[9], Contains("open 1/1 took 4.0 s"));
  CHECK_THAT(stall_report(json::object(), {}), Contains("none failed"));
}

}  // namespace
}  // namespace nvr::tools
