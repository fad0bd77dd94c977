#include "tools/ctl/top_screen.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "tools/ctl/figures.h"
#include "tools/ctl/stream_table.h"

namespace nvr::tools {
namespace {

using nlohmann::json;

enum class Look { kPlain, kHeading, kAlarm };

struct Line {
  std::string text;
  Look look = Look::kPlain;
};

std::string heading(const TopSample& sample) {
  const json& status = sample.status;
  const std::string when = clock_time(sample.time_s);
  return fmt::format("{}  nvr-readerd {}  {}  ({}, {})  up {}", when.substr(when.find(' ') + 1),
                     text_of(status, "version"), text_of(status, "directory"), text_of(status, "device_kind"),
                     text_of(status, "engine"), duration(number(status, "uptime_s")));
}

Line disk_line(const json& status) {
  const json& stall = child(status, "stall");
  const std::string in_flight = fmt::format("{} in flight", integer(status, "operations_in_flight"));
  if (!flag(stall, "stuck")) return {fmt::format("disk ok, {}", in_flight)};
  const bool is_read = text_of(stall, "operation") == "read";
  return {fmt::format("disk {} for {}: {} {}{}; {}",
                      flag(stall, "others_answered") ? "answers, one operation STUCK" : "STUCK",
                      duration(number(stall, "since_s")), text_of(stall, "operation"),
                      text_of(stall, "recording"),
                      is_read ? " at byte " + grouped(integer(stall, "offset")) : std::string(), in_flight),
          Look::kAlarm};
}

std::string sums(const TopSample& sample) {
  const json& totals = child(sample.status, "totals");
  std::string out = fmt::format(
      "{} streams of {} connections, {} wait for the disk; {}/s; {} errors of the disk so far",
      streams_served(totals), integer(totals, "connections_now"), integer(totals, "streams_waiting"),
      bytes(sample.bytes_per_s), grouped(integer(totals, "errors_of_disk")));
  const json& visits = child(sample.status, "visits");
  if (visits.is_object() && integer(visits, "count") > 0)
    out += fmt::format("; efficiency {:.0f}%", 100 * number(visits, "efficiency"));
  return out;
}

// What fits below the other lines; the last says how many do not.
void add_streams(std::vector<Line>& lines, const TopSample& sample, std::optional<TopBounds> bounds) {
  const std::vector<TableLine> table = stream_table(child(sample.streams, "streams"));
  const auto left_out = static_cast<std::size_t>(integer(sample.streams, "left_out"));
  std::size_t shown = table.size();
  if (bounds) {
    const std::size_t room = bounds->rows - std::min(bounds->rows, lines.size());
    if (table.size() + (left_out > 0 ? 1 : 0) > room) shown = room - std::min<std::size_t>(room, 1);
  }
  for (std::size_t i = 0; i < shown; ++i)
    lines.push_back({table[i].text, table[i].is_alarming ? Look::kAlarm : Look::kPlain});
  if (const std::size_t more = table.size() - shown + left_out; more > 0)
    lines.push_back({fmt::format("and {} more streams", more)});
}

std::string painted(const Line& line, std::optional<TopBounds> bounds) {
  if (!bounds) return line.text;
  std::string text = line.text.substr(0, bounds->columns);
  switch (line.look) {
    case Look::kPlain:
      return text;
    case Look::kHeading:
      text.resize(bounds->columns, ' ');
      return "\x1b[7m" + text + "\x1b[0m";
    case Look::kAlarm:
      return "\x1b[1;31m" + text + "\x1b[0m";
  }
  return text;
}

}  // namespace

std::string top_screen(const TopSample& sample, std::optional<TopBounds> bounds) {
  std::vector<Line> lines = {{heading(sample)}};
  if (!sample.trouble.empty()) lines.push_back({sample.trouble, Look::kAlarm});
  lines.push_back(disk_line(sample.status));
  lines.push_back({sums(sample)});
  lines.push_back({});
  lines.push_back({stream_table_heading(), Look::kHeading});
  add_streams(lines, sample, bounds);
  if (bounds && lines.size() > bounds->rows) lines.resize(bounds->rows);
  std::string screen;
  for (const Line& line : lines) screen += (&line == &lines.front() ? "" : "\n") + painted(line, bounds);
  return screen;
}

}  // namespace nvr::tools
