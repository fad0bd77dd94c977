// The open streams as a table: who, what, at which rate, how long each waits and for what. Pure.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace nvr::tools {

// The name of a process; empty when it is not known.
using ProcessNames = std::function<std::string(std::int64_t)>;

// A rate from a count that is looked at again and again. Bytes come in chunks: a viewer of 10 KB/s has one in
// 6 s, and a look that found none since the last look would say that it stands still. So the rate is that of
// the last 10 s, or since the count last moved, if that was within a minute.
class Speedometer {
 public:
  // `now_s`: of any steady clock. The rate per second, or nothing at the first look, and when the count has
  // fallen.
  std::optional<double> look(double count, double now_s);

 private:
  struct Look {
    double at_s = 0;
    double count = 0;
  };
  std::deque<Look> looks_;
};

// Rates from what the daemon's answers, one after the other, say of the same stream. A stream that is new:
// since it was opened.
class RateMeter {
 public:
  // Adds "rate", in bytes per second, to each of `streams` (the answer's "streams").
  void rate(nlohmann::json& streams, double now_s);

 private:
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t>;  // connection, stream, generation
  std::map<Key, Speedometer> meters_;
};

// Adds "process" to each.
void name_processes(nlohmann::json& streams, const ProcessNames& process_of);

struct TableLine {
  std::string text;
  bool is_alarming = false;  // it has waited for the disk for a second
};
[[nodiscard]] std::string stream_table_heading();
// Those that wait longest for the disk come first, then the fastest. `streams` have a rate and a process.
[[nodiscard]] std::vector<TableLine> stream_table(const nlohmann::json& streams);

// What `nvr-readerctl streams` prints of the daemon's answer.
[[nodiscard]] std::string streams_report(const nlohmann::json& answer);

}  // namespace nvr::tools
