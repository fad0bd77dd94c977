// The SVG: two columns (disks), two rows (throughput, longest wait). No fonts, scripts or styles from
// elsewhere.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/demo/story.h"

namespace nvr::demo {
namespace {

constexpr double kWidth = 1000;
constexpr double kHeight = 560;
constexpr double kTop = 96;
constexpr double kPanelWidth = 410;
constexpr double kPanelHeight = 165;
constexpr double kLeft[] = {70, 550};
constexpr double kRow[] = {kTop, kTop + kPanelHeight + 62};

constexpr const char* kInk = "#1f2933";
constexpr const char* kFaint = "#7b8794";
constexpr const char* kGrid = "#e4e7eb";
constexpr const char* kStall = "#fde8e8";
constexpr const char* kAlarm = "#b42318";
constexpr const char* kColour[] = {"#b45309", "#1d6fb8"};  // of disk A's clients, and of B's

double tick_s() {
  return std::chrono::duration<double>(kTick).count();
}

std::string words(double x, double y, const char* colour, int size, const std::string& text,
                  const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" fill=\"{}\" font-size=\"{}\" {}>{}</text>\n", x, y,
                     colour, size, more, text);
}

// One of the four panels: x is seconds, y from 0 to `top`.
class Panel {
 public:
  Panel(const Story& story, double left, double row, double top)
      : story_(story), left_(left), row_(row), top_(top) {}

  [[nodiscard]] double x(double seconds) const { return left_ + seconds / story_.length_s * kPanelWidth; }
  [[nodiscard]] double y(double value) const {
    return row_ + kPanelHeight * (1 - std::min(value, top_) / top_);
  }

  [[nodiscard]] std::string frame(bool stalls, const std::string& title,
                                  const std::vector<double>& marks) const {
    std::string out;
    if (stalls)
      out += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n",
                         x(story_.stall_from_s), row_, x(story_.stall_until_s) - x(story_.stall_from_s),
                         kPanelHeight, kStall);
    for (const double mark : marks) {
      out += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n",
                         left_, left_ + kPanelWidth, y(mark), y(mark), kGrid);
      out += words(left_ - 8, y(mark) + 4, kFaint, 12, fmt::format("{:g}", mark), "text-anchor=\"end\"");
    }
    const double step = story_.length_s > 20 ? 10 : story_.length_s > 8 ? 5 : 1;
    for (double at = 0; at <= story_.length_s + 0.01; at += step)
      out += words(x(at), row_ + kPanelHeight + 17, kFaint, 12, fmt::format("{:g} s", at),
                   "text-anchor=\"middle\"");
    return out + words(left_, row_ - 10, kInk, 13, title, "font-weight=\"600\"");
  }
  [[nodiscard]] std::string line(const std::vector<double>& values, const char* colour) const {
    std::string points;
    for (std::size_t i = 0; i < values.size(); ++i)
      points += fmt::format("{:.1f},{:.1f} ", x((static_cast<double>(i) + 0.5) * tick_s()), y(values[i]));
    return fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" stroke-opacity=\"0.65\" "
        "stroke-linejoin=\"round\"/>\n",
        points, colour);
  }

 private:
  const Story& story_;
  double left_, row_, top_;
};

// Over a second: a chunk more or less in a tick is no news.
std::vector<double> throughput(const Teller& viewer, std::size_t ticks) {
  std::vector<double> values(ticks);
  for (std::size_t i = 0; i < ticks; ++i) {
    std::uint64_t bytes = 0;
    std::size_t count = 0;
    for (std::size_t j = i < 2 ? 0 : i - 2; j < std::min(ticks, i + 2); ++j, ++count)
      bytes += j < viewer.ticks.size() ? viewer.ticks[j].bytes : 0;
    values[i] = static_cast<double>(bytes) / 1e6 / (static_cast<double>(count) * tick_s());
  }
  return values;
}
std::vector<double> waits(const Teller& viewer, std::size_t ticks) {
  std::vector<double> values(ticks);
  for (std::size_t i = 0; i < std::min(ticks, viewer.ticks.size()); ++i)
    values[i] = static_cast<double>(viewer.ticks[i].longest_wait_us) / 1000;
  return values;
}

double highest_throughput(const Story& story, std::size_t ticks) {
  double highest = 0;
  for (const Teller& viewer : story.viewers)
    if (!viewer.by_itself) highest = std::max(highest, std::ranges::max(throughput(viewer, ticks)));
  return highest;
}

std::string column(const Story& story, int which) {
  const std::string disk = which == 0 ? "A" : "B";
  const bool stalls = which == 0;
  const auto ticks = static_cast<std::size_t>(story.length_s / tick_s());
  const double rate = static_cast<double>(story.bytes_per_s) / 1e6;
  const double top = 4 * rate * std::ceil(highest_throughput(story, ticks) / (4 * rate));
  const Panel speed(story, kLeft[which], kRow[0], top);
  const Panel wait(story, kLeft[which], kRow[1], 500);
  std::string out = words(kLeft[which], kTop - 34, kColour[which], 16,
                          stalls ? "Disk A: stalls" : "Disk B: healthy, beside it", "font-weight=\"700\"");
  out += speed.frame(stalls, "throughput of each client, MB/s", {0, top / 4, top / 2, top * 3 / 4, top});
  out += wait.frame(stalls, "longest wait in next(), ms", {0, 125, 250, 375, 500});
  for (const Teller& viewer : story.viewers) {
    if (viewer.disk != disk || viewer.by_itself) continue;
    out += speed.line(throughput(viewer, ticks), kColour[which]);
    out += wait.line(waits(viewer, ticks), kColour[which]);
  }
  out += fmt::format(
      "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-dasharray=\"5 "
      "4\"/>\n",
      kLeft[which], kLeft[which] + kPanelWidth, wait.y(250), wait.y(250), kFaint);
  if (!stalls)
    return out + words(kLeft[1] + kPanelWidth, wait.y(250) - 6, kFaint, 12, "their deadline",
                       "text-anchor=\"end\"");
  const double middle = (speed.x(story.stall_from_s) + speed.x(story.stall_until_s)) / 2;
  out += words(middle, kRow[0] + 20, kAlarm, 13,
               fmt::format("disk A stalls for {:g} s", story.stall_until_s - story.stall_from_s),
               "text-anchor=\"middle\" font-weight=\"600\"");
  out += words(middle + 20, wait.y(250) + 18, kColour[0], 12, "told every 250 ms how long,",
               "text-anchor=\"middle\"");
  out += words(middle + 20, wait.y(250) + 33, kColour[0], 12, "and on which recording",
               "text-anchor=\"middle\"");
  for (const Teller& viewer : story.viewers)
    if (viewer.by_itself)
      out += words(middle, wait.y(500) + 20, kAlarm, 12,
                   fmt::format("&#8593; a process that reads for itself: {:.1f} s",
                               static_cast<double>(viewer.end.longest_wait_us) / 1e6),
                   "text-anchor=\"middle\" font-weight=\"600\"");
  return out;
}

}  // namespace

std::string svg(const Story& story) {
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"system-ui, sans-serif\" role=\"img\">\n"
      "<title>Clients of a disk that stalls, and clients of a healthy disk beside it</title>\n"
      "<rect width=\"{0}\" height=\"{1}\" rx=\"10\" fill=\"#ffffff\"/>\n",
      kWidth, kHeight);
  std::size_t clients = 0;
  for (const Teller& viewer : story.viewers) clients += viewer.disk == "A" && !viewer.by_itself ? 1 : 0;
  out += words(kLeft[0], 34, kInk, 18,
               fmt::format("{} viewers on each of two disks, one of which hangs", clients),
               "font-weight=\"700\"");
  out += column(story, 0);
  out += column(story, 1);
  out += words(
      kLeft[0], kHeight - 22, kFaint, 12,
      fmt::format("Each plays {:g} MB/s through nvr-readerd --engine {}; every byte compared. Reproduce: "
                  "tools/demo-stall",
                  static_cast<double>(story.bytes_per_s) / 1e6, story.engine));
  return out + "</svg>\n";
}

}  // namespace nvr::demo
