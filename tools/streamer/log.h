// Lines on stderr about viewers, at most so many in a while: a dying disk has hundreds of viewers. One
// thread.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace nvr::streamer {

class Log {
 public:
  void line(const std::string& text) {
    const auto now = std::chrono::steady_clock::now();
    if (now - began_ >= kPeriod) {
      if (left_out_ > 0) fmt::print(stderr, "nvr-streamer: {} more lines like these\n", left_out_);
      began_ = now;
      written_ = left_out_ = 0;
    }
    if (written_ == kMostLines) {
      ++left_out_;
      return;
    }
    ++written_;
    fmt::print(stderr, "nvr-streamer: {}\n", text);
  }

 private:
  static constexpr int kMostLines = 20;
  static constexpr auto kPeriod = std::chrono::seconds(10);

  std::chrono::steady_clock::time_point began_;
  int written_ = 0;
  unsigned left_out_ = 0;
};

}  // namespace nvr::streamer
