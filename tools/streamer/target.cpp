#include "tools/streamer/target.h"

#include <algorithm>

namespace nvr::streamer {
namespace {

constexpr std::string_view kHealth = "healthz";
constexpr std::string_view kMetrics = "metrics";

char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
bool is_letter(char c) {
  return to_lower(c) >= 'a' && to_lower(c) <= 'z';
}
bool is_name_character(char c) {
  return is_letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

tl::unexpected<Error> bad_target() {
  return fail(Code::kInvalidArgument,
              "ask for /ID or /DISK/ID, with ID as 16 hex digits or STREAM/RECORDING; or for /healthz, "
              "/healthz/DISK or /metrics");
}

// The path of an absolute-form target ("http://host/3/1", as a proxy is asked), else the target.
std::string_view path_in(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.size() < scheme.size() ||
        !std::ranges::equal(target.substr(0, scheme.size()), scheme, {}, [](char c) { return to_lower(c); }))
      continue;
    const auto path = target.find_first_of("/?#", scheme.size());
    return path == std::string_view::npos || target[path] != '/' ? "/" : target.substr(path);
  }
  return target;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = to_lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Nothing where a '%' is not followed by two digits.
std::optional<std::string> percent_decoded(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = high < 0 ? -1 : hex_digit(text[i + 2]);
    if (low < 0) return std::nullopt;
    decoded += static_cast<char>(16 * high + low);
    i += 2;
  }
  return decoded;
}

}  // namespace

bool is_disk_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && is_letter(name.front()) && name != kHealth &&
         name != kMetrics && std::ranges::all_of(name, is_name_character);
}

Result<Target> parse_target(std::string_view text) {
  text = path_in(text);
  const auto path = percent_decoded(text.substr(0, text.find('?')));
  if (!path || !path->starts_with('/')) return bad_target();
  std::string_view target = *path;
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
