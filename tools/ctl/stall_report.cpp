#include "tools/ctl/stall_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string_view>
#include <tuple>
#include <vector>

#include "tools/ctl/figures.h"

namespace nvr::tools {
namespace {

using nlohmann::json;

constexpr std::int64_t kGapBytes = 1 << 20;  // ranges that are closer than this are one
constexpr std::size_t kLatest = 10;

// Operations on one stretch of one recording, or its opens.
struct Suspect {
  std::string recording;
  bool is_open = false;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t slow = 0;
  std::int64_t failed = 0;
  std::set<std::string> errors;
  double longest_s = 0;
  double last_s = 0;
};

std::int64_t end_of(const json& operation) {
  return integer(operation, "offset") + std::max<std::int64_t>(integer(operation, "length"), 1);
}

bool is_open(const json& operation) {
  return text_of(operation, "operation") == "open";
}

bool belongs(const Suspect& suspect, const json& operation) {
  return suspect.recording == text_of(operation, "recording") && suspect.is_open == is_open(operation) &&
         integer(operation, "offset") <= suspect.end + kGapBytes;
}

void add(Suspect& suspect, const json& operation, double slow_from_s) {
  const double took_s = number(operation, "duration_s");
  suspect.end = std::max(suspect.end, end_of(operation));
  suspect.slow += took_s >= slow_from_s ? 1 : 0;
  if (integer(operation, "errno") != 0) {
    ++suspect.failed;
    suspect.errors.insert(text_of(operation, "error"));
  }
  suspect.longest_s = std::max(suspect.longest_s, took_s);
  suspect.last_s = std::max(suspect.last_s, number(operation, "ended_s"));
}

// Those with errors first, then those that took longest.
std::vector<Suspect> suspects_in(const json& operations, double slow_from_s) {
  std::vector<const json*> order;
  for (const json& operation : operations) order.push_back(&operation);
  std::ranges::stable_sort(order, {}, [](const json* operation) {
    return std::tuple(text_of(*operation, "recording"), is_open(*operation), integer(*operation, "offset"));
  });
  std::vector<Suspect> suspects;
  for (const json* const operation : order) {
    if (suspects.empty() || !belongs(suspects.back(), *operation))
      suspects.push_back({.recording = text_of(*operation, "recording"),
                          .is_open = is_open(*operation),
                          .begin = integer(*operation, "offset"),
                          .errors = {}});
    add(suspects.back(), *operation, slow_from_s);
  }
  std::ranges::stable_sort(suspects, [](const Suspect& a, const Suspect& b) {
    return std::tuple(a.failed, a.longest_s) > std::tuple(b.failed, b.longest_s);
  });
  return suspects;
}

constexpr std::string_view kRow = "{:<14} {:<33} {:>6} {:>7} {:>12}  {:<19}  {}\n";

std::string line_of(const Suspect& suspect) {
  std::string errors;
  for (const std::string& error : suspect.errors) errors += (errors.empty() ? "" : ", ") + error;
  const std::string where =
      suspect.is_open ? "its open" : grouped(suspect.begin) + " - " + grouped(suspect.end);
  return fmt::format(kRow, suspect.recording, where, suspect.slow, suspect.failed,
                     microseconds(suspect.longest_s * 1e6),
                     clock_time(static_cast<std::int64_t>(suspect.last_s)), errors);
}

std::string what_of(const json& operation) {
  std::string what = text_of(operation, "operation") + " " + text_of(operation, "recording");
  if (!is_open(operation)) what += " at byte " + grouped(integer(operation, "offset"));
  return what;
}

std::string latest_line(const json& operation, const ProcessNames& process_of) {
  const std::int64_t pid = integer(operation, "pid");
  const std::string process = process_of ? printable(process_of(pid)) : std::string();
  return fmt::format("  {}  {} took {}{}{}  (for pid {}{}, uid {})\n",
                     clock_time(static_cast<std::int64_t>(number(operation, "ended_s"))), what_of(operation),
                     microseconds(number(operation, "duration_s") * 1e6),
                     integer(operation, "errno") != 0 ? ": " : "",
                     integer(operation, "errno") != 0 ? text_of(operation, "error") : "", pid,
                     process.empty() ? "" : " " + process, integer(operation, "uid"));
}

}  // namespace

std::string stall_report(const json& log, const ProcessNames& process_of) {
  const double slow_from_s = number(log, "slow_from_s");
  std::string report;
  if (const json& stuck = child(log, "stuck"); stuck.is_object())
    report += fmt::format("in progress: {}, for {}\n", what_of(stuck), duration(number(stuck, "since_s")));
  const json& operations = child(log, "operations");
  if (!operations.is_array() || operations.empty())
    return report +
           fmt::format("no operation took {} or more, and none failed\n", microseconds(slow_from_s * 1e6));

  report += fmt::format("{} operations that took {} or more, or failed", grouped(integer(log, "total")),
                        microseconds(slow_from_s * 1e6));
  if (integer(log, "total") > integer(log, "kept"))
    report += fmt::format("; here are the last {}", grouped(integer(log, "kept")));
  if (integer(log, "lost") > 0)
    report += fmt::format("; {} more came too fast to be kept", grouped(integer(log, "lost")));
  report += ".\n\n" + fmt::format(kRow, "RECORDING", "BYTES", "SLOW", "FAILED", "LONGEST", "LAST", "ERRORS");
  for (const Suspect& suspect : suspects_in(operations, slow_from_s)) report += line_of(suspect);

  report += "\nthe latest first:\n";
  const std::size_t shown = std::min(kLatest, operations.size());
  for (std::size_t i = 0; i < shown; ++i)
    report += latest_line(operations[operations.size() - 1 - i], process_of);
  return report;
}

}  // namespace nvr::tools
