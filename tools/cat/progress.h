// The progress bar on standard error, when that is a terminal; otherwise it does nothing. Redrawn at most ten
// times a second, and gone before any other line is printed.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "nvr/client.h"

namespace nvr::tools {

class Progress {
 public:
  explicit Progress(RecordingId recording);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { clear(); }

  [[nodiscard]] bool is_visible() const { return visible_; }
  void set_total(std::uint64_t bytes) { total_ = bytes; }  // 0: not known yet
  void advance(std::uint64_t bytes);
  // Nothing arrived for a while: says what the disk is doing.
  void show_wait(const DiskStatus& disk);
  void clear();

 private:
  void draw(const std::string& note);

  std::string name_;
  bool visible_;
  bool drawn_ = false;
  Clock::time_point started_ = Clock::now();
  Clock::time_point last_drawn_;
  std::uint64_t done_ = 0;
  std::uint64_t total_ = 0;
};

}  // namespace nvr::tools
