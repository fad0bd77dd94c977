// The language of orders: what a running disk can be told to do wrong. Parsing and printing are pure; any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/slowdisk/request.h"

namespace nvr::slowdisk {

// For --help and for the answer to an order that is not understood.
extern const char* const kOrderHelp;

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;  // exclusive, above begin

  friend bool operator==(const Range&, const Range&) = default;
};

// Which requests an order is about.
struct Target {
  std::uint8_t operations = 0;  // bits of Operation
  std::string file;             // empty: any
  std::vector<Range> ranges;    // empty: all of it

  friend bool operator==(const Target&, const Target&) = default;
  [[nodiscard]] bool matches(const Request& request) const;
};

enum class Verb : std::uint8_t {
  kStall,     // requests wait until it is lifted; others go past them
  kLatency,   // each request waits so long before the disk begins it; others go past it
  kDelay,     // requests take so much longer, and keep the head busy
  kEio,       // requests fail
  kFail,      // the same, with any errno
  kShort,     // reads return less than was asked for
  kTruncate,  // the file or image ends at `size`
  kVanish,    // everything fails at once
  kResume,    // lifts stalls and delays
  kClear,     // lifts everything, or one fault by its number
  kStatus,
};

enum class Frequency : std::uint8_t { kAlways, kOnce, kChance };

struct Order {
  Verb verb = Verb::kStatus;
  Target target;
  Frequency frequency = Frequency::kAlways;
  double probability = 1;
  Time delay{0};                        // of kDelay and kLatency
  int error = 0;                        // of kEio and kFail
  std::optional<Time> lasting;          // from when the order is given
  std::uint64_t size = 0;               // of kTruncate
  std::optional<std::uint64_t> number;  // of kClear

  friend bool operator==(const Order&, const Order&) = default;
};

// InvalidArgument, with a sentence that says what was expected.
[[nodiscard]] Result<Order> parse_order(std::string_view line);
// As it would be written; parse_order() reads it back.
[[nodiscard]] std::string to_string(const Order& order);

// "0-64K,1M-2M": ranges of bytes, ends exclusive.
[[nodiscard]] Result<std::vector<Range>> parse_ranges(std::string_view text);
[[nodiscard]] std::string to_string(const std::vector<Range>& ranges);

}  // namespace nvr::slowdisk
