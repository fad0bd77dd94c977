#include "tools/ctl/stream_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "tools/ctl/figures.h"

namespace nvr::tools {
namespace {

using nlohmann::json;

constexpr double kAlarmingS = 1;
constexpr double kWorthSayingS = 0.1;

// Processes may be named anything; what is not plain ASCII would also not be as wide as it is long.
std::string plain(std::string name, std::size_t width) {
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
  return name.substr(0, width);
}

double wait_for_disk(const json& stream) {
  const std::string what = text_of(stream, "waits_for");
  return what == "disk" || what == "queue" ? number(stream, "waits_s") : 0;
}

// Descending. A wait too short to be seen is as good as none, or the table would never be still.
std::pair<double, double> rank(const json& stream) {
  const double wait_s = wait_for_disk(stream);
  return {wait_s >= kAlarmingS ? wait_s : 0, number(stream, "rate")};
}

std::string wait_of(const json& stream) {
  if (!child(stream, "waits_for").is_string()) return "-";
  const std::string what = text_of(stream, "waits_for");
  const double seconds = number(stream, "waits_s");
  return seconds < kWorthSayingS ? what : what + " " + brief_duration(seconds);
}

std::string done_of(const json& stream) {
  const double whole = number(stream, "end") - number(stream, "begin");
  if (!child(stream, "end").is_number() || whole <= 0) return "-";
  return fmt::format("{:.0f}%", std::clamp(100 * number(stream, "bytes") / whole, 0.0, 100.0));
}

std::string range_of(const json& stream) {
  const bool knows_end = child(stream, "end").is_number();
  return fmt::format("{} in {}-{}", integer(stream, "position"), integer(stream, "begin"),
                     knows_end ? std::to_string(integer(stream, "end")) : std::string("end"));
}

constexpr std::string_view kRow = "{:>7} {:>7} {:<12} {:<13} {:>4} {:>11} {:<12} {:<8} {:>5} {:<8}  {}";

}  // namespace

std::optional<double> Speedometer::look(double count, double now_s) {
  constexpr double kWindowS = 10;
  constexpr double kLongestS = 60;
  if (!looks_.empty() && (count < looks_.back().count || now_s <= looks_.back().at_s)) looks_.clear();
  looks_.push_back({now_s, count});
  const auto is_spare = [&] {  // the next one tells as much
    const Look& next = looks_[1];
    return now_s - next.at_s >= kLongestS || (now_s - next.at_s >= kWindowS && next.count < count);
  };
  while (looks_.size() > 2 && is_spare()) looks_.pop_front();
  if (looks_.size() == 1) return std::nullopt;
  return (count - looks_.front().count) / (now_s - looks_.front().at_s);
}

void RateMeter::rate(json& streams, double now_s) {
  std::map<Key, Speedometer> meters;
  if (!streams.is_array()) return;
  for (json& stream : streams) {
    if (!stream.is_object()) continue;
    const Key key = {integer(stream, "connection"), integer(stream, "stream"), integer(stream, "generation")};
    const double bytes = number(stream, "bytes");
    const double open_s = number(stream, "open_s");
    const double mean = open_s > 0 ? bytes / open_s : 0;
    Speedometer& meter = meters[key] = std::move(meters_[key]);
    stream["rate"] = meter.look(bytes, now_s).value_or(mean);
  }
  meters_ = std::move(meters);  // without those that have gone
}

void name_processes(json& streams, const ProcessNames& process_of) {
  if (!streams.is_array()) return;
  std::map<std::int64_t, std::string> known;
  for (json& stream : streams) {
    if (!stream.is_object()) continue;
    const std::int64_t pid = integer(stream, "pid");
    const auto [name, is_new] = known.try_emplace(pid);
    if (is_new && process_of) name->second = process_of(pid);
    stream["process"] = name->second;
  }
}

std::string stream_table_heading() {
  return fmt::format(kRow, "CONN", "PID", "PROCESS", "RECORDING", "DONE", "RATE", "WAITS FOR", "STATE", "UID",
                     "PRIORITY", "BYTE");
}

std::vector<TableLine> stream_table(const json& streams) {
  std::vector<const json*> order;
  if (streams.is_array())
    for (const json& stream : streams) order.push_back(&stream);
  std::ranges::stable_sort(order, [](const json* a, const json* b) { return rank(*a) > rank(*b); });
  std::vector<TableLine> lines;
  for (const json* const stream : order) {
    const std::string process = plain(text_of(*stream, "process"), 12);
    lines.push_back(
        {.text = fmt::format(
             kRow, fmt::format("{}/{}", integer(*stream, "connection"), integer(*stream, "stream")),
             integer(*stream, "pid"), process.empty() ? "-" : process, text_of(*stream, "recording"),
             done_of(*stream), bytes(number(*stream, "rate")) + "/s", wait_of(*stream),
             text_of(*stream, "state"), integer(*stream, "uid"), text_of(*stream, "priority"),
             range_of(*stream)),
         .is_alarming = wait_for_disk(*stream) >= kAlarmingS});
  }
  return lines;
}

std::string streams_report(const json& answer) {
  const json& streams = child(answer, "streams");
  if (!streams.is_array() || streams.empty()) return "no stream is open\n";
  std::string report = stream_table_heading() + "\n";
  for (const TableLine& line : stream_table(streams)) report += line.text + "\n";
  if (const std::int64_t left_out = integer(answer, "left_out"); left_out > 0)
    report += fmt::format("and {} more, which the daemon left out\n", grouped(left_out));
  return report;
}

}  // namespace nvr::tools
