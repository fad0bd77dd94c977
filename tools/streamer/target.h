// What a request's target names: /ID or /DISK/ID, or one of the streamer's own pages. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "nvr/recording.h"

namespace nvr::streamer {

struct Target {
  enum class Page { kRecording, kHealth, kMetrics };
  Page page = Page::kRecording;
  std::string disk;  // empty: any
  RecordingId recording;
};

// Can a disk be called that? A letter first, so that no name looks like the stream of STREAM/RECORDING.
[[nodiscard]] bool is_disk_name(std::string_view name);

// A path, or the absolute form with scheme and host, which are ignored, as is what follows a '?'; characters
// may be percent-encoded. InvalidArgument, with what was wrong, otherwise.
[[nodiscard]] Result<Target> parse_target(std::string_view text);

}  // namespace nvr::streamer
