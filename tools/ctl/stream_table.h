// The open streams as a table: who, what, at which rate, how long each waits and for what. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

namespace nvr::tools {

// The name of a process; empty when it is not known.
using ProcessNames = std::function<std::string(std::int64_t)>;

// Rates from what two answers of the daemon, one after the other, say of the same stream. A stream that is
// new: since it was opened.
class RateMeter {
 public:
  // Adds "rate", in bytes per second, to each of `streams` (the answer's "streams"). `now_s`: of any steady
  // clock.
  void rate(nlohmann::json& streams, double now_s);

 private:
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t>;  // connection, stream, generation
  std::map<Key, double> last_bytes_;
  double last_s_ = 0;
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
