// What can be asked for: the name of a recording (camera stream and recording number, as Moonfire NVR numbers
// them) and how to read it.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "nvr/error.h"
#include "nvr/export.h"

namespace nvr {

// A recording's composite id is `(stream << 32) | recording`. Its sample file is named by the composite id as
// 16 lower-case hex digits (3/1842086 is 00000003001c1ba6); no other name can be asked for.
struct NVR_PUBLIC RecordingId {
  std::uint32_t stream = 0;
  std::uint32_t recording = 0;

  [[nodiscard]] constexpr std::uint64_t composite() const {
    return (std::uint64_t{stream} << 32) | recording;
  }
  [[nodiscard]] static constexpr RecordingId from_composite(std::uint64_t id) {
    return {static_cast<std::uint32_t>(id >> 32), static_cast<std::uint32_t>(id)};
  }
  // Accepts "3/1842086" (decimal) or "00000003001c1ba6" (16 hex digits). InvalidArgument otherwise.
  [[nodiscard]] static Result<RecordingId> parse(std::string_view text);

  friend auto operator<=>(const RecordingId&, const RecordingId&) = default;
};

[[nodiscard]] NVR_PUBLIC std::string to_string(RecordingId id);     // "3/1842086"
[[nodiscard]] NVR_PUBLIC std::string file_name_of(RecordingId id);  // "00000003001c1ba6"

// How urgent a stream's reads are. The numbers are part of the protocol.
enum class Priority : std::uint8_t { kLive = 0, kPlayback = 1, kExport = 2, kScrub = 3 };
inline constexpr std::size_t kPriorities = 4;

// What a stream's reads leave in the page cache. The numbers are part of the protocol.
//   kNormal  what the kernel keeps
//   kDrop    what was there before, and nothing of their own: for exports that must not evict footage which
//            others watch
//   kDirect  nothing, they go past it (O_DIRECT): for cold, finished recordings. Any range is exact; aligned
//            ones cost least. Unimplemented with --engine mmap, and where the file system has no such reads
enum class CachePolicy : std::uint8_t { kNormal = 0, kDrop = 1, kDirect = 2 };

}  // namespace nvr
