#include "tools/streamer/range.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace nvr::streamer {
namespace {

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Digits and nothing else. A number beyond 64 bits is beyond every file: the largest will do.
std::optional<std::uint64_t> parse_number(std::string_view text) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  std::uint64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec == std::errc::result_out_of_range) return std::numeric_limits<std::uint64_t>::max();
  return value;
}

bool is_bytes_unit(std::string_view unit) {
  constexpr std::string_view kBytes = "bytes";
  return std::ranges::equal(unit, kBytes, [](char a, char b) { return (a | 0x20) == b; });
}

}  // namespace

std::optional<RangeHeader> parse_range(std::string_view header) {
  const auto equals = header.find('=');
  if (equals == std::string_view::npos || !is_bytes_unit(trim(header.substr(0, equals)))) return std::nullopt;
  const std::string_view spec = trim(header.substr(equals + 1));
  const auto dash = spec.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const std::string_view before = spec.substr(0, dash);
  const std::string_view after = spec.substr(dash + 1);
  if (before.empty()) {
    const auto length = parse_number(after);
    if (!length) return std::nullopt;
    return RangeHeader{.is_suffix = true, .first = *length, .last = std::nullopt};
  }
  const auto first = parse_number(before);
  const auto last = after.empty() ? std::nullopt : parse_number(after);
  if (!first || (!after.empty() && !last) || (last && *last < *first)) return std::nullopt;
  return RangeHeader{.is_suffix = false, .first = *first, .last = last};
}

std::optional<Slice> resolve(const RangeHeader& range, std::uint64_t size) {
  if (range.is_suffix) {
    if (range.first == 0 || size == 0) return std::nullopt;
    return Slice{.begin = size - std::min(size, range.first), .end = size};
  }
  if (range.first >= size) return std::nullopt;
  return Slice{.begin = range.first, .end = range.last ? std::min(*range.last, size - 1) + 1 : size};
}

std::string etag_of(const RecordingInfo& info, bool for_replicas) {
  if (for_replicas) return fmt::format("\"{:x}-{:x}\"", info.size, info.mtime_ns);
  return fmt::format("\"{:x}-{:x}-{:x}-{:x}-{:x}\"", info.device, info.inode, info.size, info.mtime_ns,
                     info.birth_ns);
}

bool has_settled(const RecordingInfo& info, std::chrono::system_clock::time_point now,
                 std::chrono::milliseconds settle_time) {
  const auto latest = now.time_since_epoch() - settle_time;
  return info.mtime_ns <= std::chrono::nanoseconds(latest).count();
}

bool is_listed(std::string_view list, std::string_view etag, Comparison comparison) {
  if (trim(list) == "*") return true;
  while (!list.empty()) {
    const auto comma = list.find(',');  // no ETag of ours has one
    std::string_view one = trim(list.substr(0, comma));
    if (comparison == Comparison::kWeak && one.starts_with("W/")) one.remove_prefix(2);
    if (one == etag) return true;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return false;
}

Decision decide(const Conditions& conditions, std::uint64_t size, std::string_view etag) {
  using Kind = Decision::Kind;
  if (!conditions.if_match.empty() && !is_listed(conditions.if_match, etag, Comparison::kStrong))
    return {.kind = Kind::kOtherVersion, .slice = {}};
  if (!conditions.if_none_match.empty() && is_listed(conditions.if_none_match, etag, Comparison::kWeak))
    return {.kind = Kind::kNotModified, .slice = {}};
  // A date matches nothing: there is no Last-Modified.
  const bool has_range =
      conditions.range && (conditions.if_range.empty() || trim(conditions.if_range) == etag);
  if (!has_range || size == 0) return {.kind = Kind::kWhole, .slice = {.begin = 0, .end = size}};
  const auto slice = resolve(*conditions.range, size);
  if (!slice) return {.kind = Kind::kNotSatisfiable, .slice = {}};
  return {.kind = Kind::kPart, .slice = *slice};
}

}  // namespace nvr::streamer
