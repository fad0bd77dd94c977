#include "tools/cat/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace nvr::tools {
namespace {

constexpr auto kRedrawEvery = std::chrono::milliseconds(100);
constexpr std::uint64_t kBarWidth = 28;
constexpr double kMegabyte = 1e6;

double seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

Progress::Progress(RecordingId recording)
    : name_(to_string(recording)), visible_(isatty(STDERR_FILENO) == 1) {}

void Progress::advance(std::uint64_t bytes) {
  done_ += bytes;
  if (!visible_ || Clock::now() - last_drawn_ < kRedrawEvery) return;
  const double rate = static_cast<double>(done_) / std::max(seconds(Clock::now() - started_), 1e-6);
  draw(fmt::format("{:.0f} MB/s", rate / kMegabyte));
}

void Progress::show_wait(const DiskStatus& disk) {
  if (!visible_) return;
  draw(disk.stuck ? fmt::format("waiting: the disk has been stuck for {:.0f} s", seconds(disk.stuck_for))
                  : std::string("waiting for the disk"));
}

void Progress::draw(const std::string& note) {
  const double done_mb = static_cast<double>(done_) / kMegabyte;
  std::string line = fmt::format("{}  ", name_);
  if (total_ > 0) {
    const double part = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
    const auto filled = static_cast<std::size_t>(part * static_cast<double>(kBarWidth));
    line += fmt::format("[{}{}] {:3.0f} %  {:.1f} of {:.1f} MB", std::string(filled, '#'),
                        std::string(kBarWidth - filled, '-'), part * 100, done_mb,
                        static_cast<double>(total_) / kMegabyte);
  } else {
    line += fmt::format("{:.1f} MB", done_mb);
  }
  fmt::print(stderr, "\r{}  {}\x1b[K", line, note);
  std::fflush(stderr);
  drawn_ = true;
  last_drawn_ = Clock::now();
}

void Progress::clear() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace nvr::tools
