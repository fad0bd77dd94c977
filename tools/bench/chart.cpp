#include "tools/bench/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "tools/bench/text_files.h"

namespace nvr::bench {
namespace {

constexpr double kLeft = 60;
constexpr double kTop = 52;      // of the bars in a panel
constexpr double kHeight = 180;  // of the bars
constexpr double kPanel = kTop + kHeight + 40;
constexpr double kBar = 20;
constexpr double kGap = 26;  // between groups
constexpr double kLegend = 112;
constexpr double kLetter = 6;  // of a group's label

// A system has the same colour in all charts.
const char* colour_of(const std::string& series) {
  struct Known {
    const char* name;
    const char* colour;
  };
  constexpr std::array<Known, 13> kKnown = {{{"memcpy", "#d8d8d8"},
                                             {"pread", "#9a9a9a"},
                                             {"read_write", "#9a9a9a"},
                                             {"sendfile", "#6b5b95"},
                                             {"thread_pool", "#c97b63"},
                                             {"seed", "#d9a441"},
                                             {"unix_socket", "#b8b06a"},
                                             {"fio", "#6b5b95"},
                                             {"nvr_mmap", "#3b6fb6"},
                                             {"nvr_io_uring", "#2f9e6e"},
                                             {"nvr_mmap_fifo", "#a8c0e0"},
                                             {"nvr_io_uring_fifo", "#a9d8c3"},
                                             {"futex", "#d8d8d8"}}};
  const auto found = std::ranges::find(kKnown, std::string_view(series), &Known::name);
  return found == kKnown.end() ? "#777777" : found->colour;
}

// What is drawn at the full height, and at none.
struct Scale {
  double least = 0;
  double most = 1;
  bool is_logarithmic = false;

  [[nodiscard]] double height(double value) const {
    const double part = is_logarithmic ? std::log(value / least) / std::log(most / least) : value / most;
    return kHeight * std::clamp(part, 0.0, 1.0);
  }
};

Scale scale_of(const Chart& chart) {
  double least = 0;
  double most = 0;
  for (const ChartGroup& group : chart.groups)
    for (const double value : group.values) {
      most = std::max(most, value);
      if (value > 0) least = least == 0 ? value : std::min(least, value);
    }
  if (most <= 0) return {};
  const auto power = [](double value) { return std::pow(10, std::floor(std::log10(value))); };
  if (chart.is_logarithmic) return {.least = power(least), .most = 10 * power(most), .is_logarithmic = true};
  const double step = power(most) / 2;
  return {.least = 0, .most = std::ceil(most / step) * step};
}

std::string number_text(double value) {
  if (value >= 9999.5) return fmt::format("{:.0f}k", value / 1000);
  if (value >= 99.5) return fmt::format("{:.0f}", value);
  return value >= 9.95 ? fmt::format("{:.1f}", value) : fmt::format("{:.2f}", value);
}

std::string text(double x, double y, std::string_view what, std::string_view more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\"{}>{}</text>\n", x, y, more, what);
}

std::string grid(const Scale& scale, double top, double width) {
  std::vector<double> marks;
  if (scale.is_logarithmic)
    for (double mark = scale.least; mark <= scale.most * 1.01; mark *= 10) marks.push_back(mark);
  else
    for (int i = 0; i <= 4; ++i) marks.push_back(scale.most * i / 4);
  std::string out;
  for (const double mark : marks) {
    const double y = top + kTop + kHeight - scale.height(mark);
    out += fmt::format("<line x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n",
                       kLeft - 4, width - 10, y, y);
    out += text(kLeft - 8, y + 4, mark == 0 ? "0" : number_text(mark), " text-anchor=\"end\"");
  }
  return out;
}

double width_of(const ChartGroup& group) {
  const auto shown = std::ranges::count_if(group.values, [](double value) { return value > 0; });
  return std::max(kLetter * static_cast<double>(group.label.size()), static_cast<double>(shown) * kBar) +
         kGap;
}

double width_of(const Chart& chart) {
  double bars = kLeft + 10;
  for (const ChartGroup& group : chart.groups) bars += width_of(group);
  return std::max({bars, kLeft + kLegend * static_cast<double>(chart.series.size()), 560.0});
}

std::string bars_of(const Chart& chart, const ChartGroup& group, const Scale& scale, double x, double top) {
  const double floor = top + kTop + kHeight;
  std::string out = text(x, floor + 16, group.label);
  for (std::size_t i = 0; i < group.values.size(); ++i) {
    const double value = group.values[i];
    if (value <= 0) continue;
    const double height = scale.height(value);
    out += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.0f}\" height=\"{:.1f}\" fill=\"{}\"/>\n",
                       x, floor - height, kBar - 2, height, colour_of(chart.series[i]));
    out += text(x + (kBar - 2) / 2, floor - height - 3, number_text(value),
                " font-size=\"8\" text-anchor=\"middle\"");
    x += kBar;
  }
  return out;
}

std::string panel_of(const Chart& chart, double top, double width) {
  const Scale scale = scale_of(chart);
  std::string out = text(kLeft, top + 16, chart.title, " font-size=\"13\"");
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const double x = kLeft + kLegend * static_cast<double>(i);
    out += fmt::format("<rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"10\" height=\"10\" fill=\"{}\"/>\n", x,
                       top + 23, colour_of(chart.series[i]));
    out += text(x + 14, top + 32, chart.series[i]);
  }
  out += grid(scale, top, width);
  double x = kLeft;
  for (const ChartGroup& group : chart.groups) {
    out += bars_of(chart, group, scale, x, top);
    x += width_of(group);
  }
  return out;
}

}  // namespace

void Chart::add(const std::string& group, const std::string& name, double value) {
  auto known = std::ranges::find(series, name);
  if (known == series.end()) known = series.insert(series.end(), name);
  const auto index = static_cast<std::size_t>(known - series.begin());
  auto place = std::ranges::find(groups, group, &ChartGroup::label);
  if (place == groups.end()) place = groups.insert(groups.end(), {.label = group, .values = {}});
  for (ChartGroup& each : groups) each.values.resize(series.size());
  place->values[index] = value;
}

Result<void> write_charts(const std::vector<Chart>& charts, const std::string& path) {
  double width = 0;
  for (const Chart& chart : charts) width = std::max(width, width_of(chart));
  std::string panels;
  double top = 6;
  for (const Chart& chart : charts) {
    panels += panel_of(chart, top, width);
    top += kPanel;
  }
  return write_text(
      fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
                  "viewBox=\"0 0 {0:.0f} {1:.0f}\" font-family=\"sans-serif\" font-size=\"11\">\n"
                  "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{2}</svg>\n",
                  width, top, panels),
      path);
}

}  // namespace nvr::bench
