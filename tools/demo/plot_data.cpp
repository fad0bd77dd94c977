// What tools/demo/plot draws, as CSV: a line for each tick of each viewer.
#include <fmt/format.h>

#include "tools/demo/story.h"

namespace nvr::demo {

std::string csv(const Story& story) {
  const double tick_s = std::chrono::duration<double>(kTick).count();
  std::string out = fmt::format(
      "# engine={} mb_per_s={:g} stall_from_s={:g} stall_until_s={:g} length_s={:g} deadline_ms={}\n",
      story.engine, static_cast<double>(story.bytes_per_s) / 1e6, story.stall_from_s, story.stall_until_s,
      story.length_s, kDeadline.count());
  out += "viewer,disk,by_itself,second,bytes,longest_wait_ms\n";
  for (const Teller& viewer : story.viewers)
    for (std::size_t tick = 0; tick < viewer.ticks.size(); ++tick)
      out += fmt::format("{},{},{},{:g},{},{:.3f}\n", viewer.name, viewer.disk, viewer.by_itself ? 1 : 0,
                         (static_cast<double>(tick) + 0.5) * tick_s, viewer.ticks[tick].bytes,
                         static_cast<double>(viewer.ticks[tick].longest_wait_us) / 1e3);
  return out;
}

}  // namespace nvr::demo
