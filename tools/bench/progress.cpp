#include "tools/bench/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace nvr::bench {
namespace {

std::string in_minutes(double seconds) {
  const auto whole = static_cast<long>(std::lround(seconds));
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

Progress::Progress(double expected_s, FILE* out)
    : out_(out), is_terminal_(isatty(fileno(out)) != 0), expected_s_(expected_s) {}

void Progress::say(const std::string& what) {
  const double elapsed_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  const std::string line = fmt::format("{} | {} gone, about {} to go", what, in_minutes(elapsed_s),
                                       in_minutes(remaining_s(elapsed_s)));
  if (!is_terminal_) {
    fmt::print(out_, "{}\n", line);
  } else {
    winsize size = {};
    const bool has_size = ioctl(fileno(out_), TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    fmt::print(out_, "\r{}\x1b[K", line.substr(0, has_size ? size.ws_col - 1U : line.size()));
    has_line_ = true;
  }
  std::fflush(out_);
}

void Progress::clear() {
  if (!has_line_) return;
  fmt::print(out_, "\r\x1b[K");
  std::fflush(out_);
  has_line_ = false;
}

double Progress::remaining_s(double elapsed_s) const {
  constexpr double kTrust = 10;  // seconds for which the guess counts as if they had gone by as expected
  return std::max(0.0, expected_s_ - done_s_) * (elapsed_s + kTrust) / (done_s_ + kTrust);
}

}  // namespace nvr::bench
