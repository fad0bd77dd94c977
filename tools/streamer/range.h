// What a request asks of a recording beyond its name: a range (RFC 9110, section 14) and what the asker has
// already (section 13). Pure; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "nvr/client.h"

namespace nvr::streamer {

// Bytes of a recording, `end` exclusive.
struct Slice {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  friend bool operator==(const Slice&, const Slice&) = default;
};

// A Range header with one range. The last `first` bytes if `is_suffix`; otherwise from `first` to `last`, or
// to the end.
struct RangeHeader {
  bool is_suffix = false;
  std::uint64_t first = 0;
  std::optional<std::uint64_t> last;  // inclusive, as in the header

  friend bool operator==(const RangeHeader&, const RangeHeader&) = default;
};

// Nothing when the header is to be ignored, and the whole recording sent: it is empty, malformed, in another
// unit, or asks for several ranges.
[[nodiscard]] std::optional<RangeHeader> parse_range(std::string_view header);
// The bytes that there are of it. Nothing when there are none: 416.
[[nodiscard]] std::optional<Slice> resolve(const RangeHeader& range, std::uint64_t size);

// The strong ETag of a recording as it is now. With `for_replicas` it is made of size and mtime alone, and so
// the same for every copy of the recording that kept its mtime.
[[nodiscard]] std::string etag_of(const RecordingInfo& info, bool for_replicas);

// Was the recording left alone for `settle_time`, by the clock of its file? One that was not may still grow.
[[nodiscard]] bool has_settled(const RecordingInfo& info, std::chrono::system_clock::time_point now,
                               std::chrono::milliseconds settle_time);

// Is `etag` on the list of an If-Match or If-None-Match? Of the two comparisons only the weak one takes a
// weak ETag ("W/...") for ours.
enum class Comparison { kStrong, kWeak };
[[nodiscard]] bool is_listed(std::string_view list, std::string_view etag, Comparison comparison);

// Headers that decide what is sent.
struct Conditions {
  std::optional<RangeHeader> range;
  std::string if_range;       // empty: no such header
  std::string if_none_match;  // likewise
  std::string if_match;       // likewise
};

struct Decision {
  enum class Kind { kWhole, kPart, kNotModified, kNotSatisfiable, kOtherVersion };
  Kind kind = Kind::kWhole;
  Slice slice;  // of kWhole and kPart
};
// An empty recording is sent whole, whatever the range: 416 would be an error where there is none, and a
// proxy that asks in slices would pass it on.
[[nodiscard]] Decision decide(const Conditions& conditions, std::uint64_t size, std::string_view etag);

}  // namespace nvr::streamer
