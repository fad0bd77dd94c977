#include "tools/ctl/figures.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <array>
#include <ctime>
#include <string_view>

namespace nvr::tools {

using nlohmann::json;

const json& child(const json& object, const char* key) {
  static const json kNothing;
  if (!object.is_object()) return kNothing;
  const auto found = object.find(key);
  return found == object.end() ? kNothing : *found;
}

double number(const json& object, const char* key) {
  const json& value = child(object, key);
  return value.is_number() ? value.get<double>() : 0;
}

std::int64_t integer(const json& object, const char* key) {
  const json& value = child(object, key);
  return value.is_number() ? value.get<std::int64_t>() : 0;
}

// Control characters could rewrite the terminal: directories and processes may be named anything.
std::int64_t streams_served(const json& totals) {
  return std::max<std::int64_t>(0, integer(totals, "streams_open") - integer(totals, "streams_ended"));
}

std::string printable(std::string name) {
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return name;
}

std::string text_of(const json& object, const char* key) {
  const json& value = child(object, key);
  if (value.is_number()) return value.dump();
  return value.is_string() ? printable(value.get<std::string>()) : "?";
}

bool flag(const json& object, const char* key) {
  const json& value = child(object, key);
  return value.is_boolean() && value.get<bool>();
}

// ---- Quantities

std::string bytes(double count) {
  static constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; count >= 1000 && unit + 1 < kUnits.size(); ++unit) count /= 1024;
  return unit == 0 ? fmt::format("{:.0f} B", count) : fmt::format("{:.1f} {}", count, kUnits[unit]);
}

std::string microseconds(double us) {
  if (us < 1000) return fmt::format("{:.0f} us", us);
  if (us < 1e6) return fmt::format("{:.1f} ms", us / 1e3);
  return fmt::format("{:.1f} s", us / 1e6);
}

std::string duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds);
  if (whole >= 86400) return fmt::format("{} d {} h", whole / 86400, whole % 86400 / 3600);
  if (whole >= 3600) return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
  if (whole >= 60) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{:.1f} s", seconds);
}

std::string grouped(std::int64_t count) {
  std::string digits = std::to_string(count);
  const std::size_t first = count < 0 ? 1 : 0;
  for (std::size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, 1, ',');
  return digits;
}

std::string clock_time(std::int64_t epoch_s) {
  const auto when = static_cast<std::time_t>(epoch_s);
  std::tm local = {};
  if (localtime_r(&when, &local) == nullptr) return "?";
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", local);
}

std::string brief_duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds);
  if (whole >= 86400) return fmt::format("{}d{:02}h", whole / 86400, whole % 86400 / 3600);
  if (whole >= 3600) return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
  if (whole >= 60) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{:.1f}s", seconds);
}

}  // namespace nvr::tools
