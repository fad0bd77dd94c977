#include "tools/streamer/target.h"

#include <algorithm>

namespace nvr::streamer {
namespace {

constexpr std::string_view kHealth = "healthz";
constexpr std::string_view kMetrics = "metrics";

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_name_character(char c) {
  return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

tl::unexpected<Error> bad_target() {
  return fail(Code::kInvalidArgument,
              "ask for /ID or /DISK/ID, with ID as 16 hex digits or STREAM/RECORDING; or for /healthz, "
              "/healthz/DISK or /metrics");
}

}  // namespace

bool is_disk_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && is_letter(name.front()) && name != kHealth &&
         name != kMetrics && std::ranges::all_of(name, is_name_character);
}

Result<Target> parse_target(std::string_view target) {
  target = target.substr(0, target.find('?'));
  if (!target.starts_with('/')) return bad_target();
  target.remove_prefix(1);
  Target parsed;
  const auto slash = target.find('/');
  const std::string_view first = target.substr(0, slash);
  const std::string_view rest =
      slash == std::string_view::npos ? std::string_view() : target.substr(slash + 1);
  if (first == kMetrics && slash == std::string_view::npos) {
    parsed.page = Target::Page::kMetrics;
    return parsed;
  }
  if (first == kHealth && (slash == std::string_view::npos || is_disk_name(rest))) {
    parsed.page = Target::Page::kHealth;
    parsed.disk = rest;
    return parsed;
  }
  // 16 hex digits alone may start with a letter.
  if (slash != std::string_view::npos && is_disk_name(first)) {
    parsed.disk = first;
    target = rest;
  }
  const auto recording = RecordingId::parse(target);
  if (!recording) return bad_target();
  parsed.recording = *recording;
  return parsed;
}

}  // namespace nvr::streamer
