#include "tools/slowdisk/units.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

namespace nvr::slowdisk {
namespace {

constexpr double kLongest_s = 366.0 * 86'400;

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
constexpr std::uint64_t kKi = 1024;
constexpr std::uint64_t kKilo = 1000;
constexpr std::array kSizeUnits = {Unit{"", 1},
                                   Unit{"K", kKi},
                                   Unit{"M", kKi* kKi},
                                   Unit{"G", kKi* kKi* kKi},
                                   Unit{"T", kKi* kKi* kKi* kKi},
                                   Unit{"KiB", kKi},
                                   Unit{"MiB", kKi* kKi},
                                   Unit{"GiB", kKi* kKi* kKi},
                                   Unit{"TiB", kKi* kKi* kKi* kKi},
                                   Unit{"KB", kKilo},
                                   Unit{"MB", kKilo* kKilo},
                                   Unit{"GB", kKilo* kKilo* kKilo},
                                   Unit{"TB", kKilo* kKilo* kKilo* kKilo}};
constexpr std::array kTimeUnits = {Unit{"us", 1'000}, Unit{"ms", 1'000'000}, Unit{"s", 1'000'000'000},
                                   Unit{"min", 60'000'000'000}};

template <std::size_t N>
std::optional<std::uint64_t> factor_of(const std::array<Unit, N>& units, std::string_view name) {
  for (const Unit& unit : units) {
    if (unit.name == name) return unit.factor;
  }
  return std::nullopt;
}

// A number that is not negative, and what follows it.
std::optional<std::pair<double, std::string_view>> parse_decimal(std::string_view text) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  double value = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value, std::chars_format::fixed);
  if (error != std::errc()) return std::nullopt;
  return std::pair(value, text.substr(static_cast<std::size_t>(end - text.data())));
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const auto unit = text.substr(static_cast<std::size_t>(end - text.data()));
  const auto factor = factor_of(kSizeUnits, unit);
  if (error == std::errc::invalid_argument || !factor)
    return fail(Code::kInvalidArgument, fmt::format("'{}' is no size such as 4096, 64K, 2G or 160MB", text));
  if (error != std::errc() || value > std::numeric_limits<std::int64_t>::max() / *factor)
    return fail(Code::kOutOfRange, fmt::format("{} is more than 2^63 - 1 bytes", text));
  return value * *factor;
}

Result<Time> parse_time(std::string_view text) {
  if (text == "0") return Time(0);
  const auto number = parse_decimal(text);
  const auto factor = number ? factor_of(kTimeUnits, number->second) : std::nullopt;
  if (!factor)
    return fail(Code::kInvalidArgument,
                fmt::format("'{}' is no time such as 20s, 8.5ms, 150us or 2min", text));
  const double nanoseconds = number->first * static_cast<double>(*factor);
  if (nanoseconds > kLongest_s * 1e9) return fail(Code::kOutOfRange, fmt::format("{} is too long", text));
  return std::chrono::microseconds(std::llround(nanoseconds / 1e3));
}

Result<double> parse_percent(std::string_view text) {
  const auto number = parse_decimal(text);
  if (!number || number->second != "%" || number->first > 100)
    return fail(Code::kInvalidArgument, fmt::format("'{}' is no chance between 0% and 100%", text));
  // To a millionth, so that it is printed exactly.
  return std::round(number->first * 1e4) / 1e6;
}

std::string size_text(std::uint64_t bytes) {
  constexpr std::string_view kNames = "KMGT";
  std::size_t steps = 0;
  while (bytes != 0 && bytes % kKi == 0 && steps < kNames.size()) {
    bytes /= kKi;
    ++steps;
  }
  return steps == 0 ? fmt::format("{}", bytes) : fmt::format("{}{}", bytes, kNames[steps - 1]);
}

std::string time_text(Time time) {
  const double us = std::round(static_cast<double>(time.count()) / 1e3);
  if (us >= 1e6) return fmt::format("{}s", us / 1e6);
  if (us >= 1e3) return fmt::format("{}ms", us / 1e3);
  return us == 0 ? "0" : fmt::format("{}us", us);
}

}  // namespace nvr::slowdisk
