#include "tools/demo/story.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace nvr::demo {
namespace {

constexpr std::size_t kTicksPerSecond = std::chrono::seconds(1) / kTick;

// One second of a viewer as a letter.
char letter(const Story& story, const Teller& viewer, std::size_t second) {
  std::uint64_t bytes = 0;
  std::uint32_t informed = 0;
  for (std::size_t i = second * kTicksPerSecond;
       i < (second + 1) * kTicksPerSecond && i < viewer.ticks.size(); ++i) {
    bytes += viewer.ticks[i].bytes;
    informed += viewer.ticks[i].informed;
  }
  if (informed > 0 && bytes < story.bytes_per_s / 2) return '!';
  if (bytes == 0) return viewer.by_itself ? 'x' : ' ';
  if (bytes > story.bytes_per_s * 3 / 2) return '>';
  return '=';
}

}  // namespace

void Story::take(const Report& report) {
  Teller& viewer = viewers.at(report.viewer);
  if (report.kind == Report::Kind::kFinal) {
    viewer.end = report;
    viewer.has_ended = true;
    return;
  }
  if (viewer.ticks.size() <= report.tick) viewer.ticks.resize(report.tick + 1);
  viewer.ticks[report.tick] = report;
}

std::string timeline(const Story& story) {
  const auto seconds = static_cast<std::size_t>(std::lround(story.length_s));
  const auto from = static_cast<std::size_t>(story.stall_from_s);
  const auto until = static_cast<std::size_t>(story.stall_until_s);
  std::string text =
      fmt::format("   {:<9}|{:{}}|{:-^{}}|\n", "second", "0", from, "disk A stalls", until - from - 1);
  for (const Teller& viewer : story.viewers) {
    std::string letters;
    for (std::size_t second = 0; second < seconds; ++second) letters += letter(story, viewer, second);
    text +=
        fmt::format("   {:<9}|{}|  {:5.1f} MB{}, longest wait {} ms", viewer.name, letters,
                    static_cast<double>(viewer.end.bytes) / 1e6,
                    viewer.end.failed != 0 ? " and then WRONG" : " exact", viewer.end.longest_wait_us / 1000);
    if (!viewer.by_itself) text += fmt::format(", told {} times", viewer.end.informed);
    text += '\n';
  }
  text +=
      "\n   = plays   ! nothing comes, and it is told so within 250 ms, with the reason   > catches up\n"
      "   x hangs in its read, and nothing can end it\n";
  return text;
}

}  // namespace nvr::demo
