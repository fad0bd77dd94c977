// How far a run has come, for whoever waits for it: on a terminal a line that changes, elsewhere a line for
// each thing that begins.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>

namespace nvr::bench {

class Progress {
 public:
  // `expected_s`: how long all of it takes. A guess; what is done shows by how much it is wrong.
  explicit Progress(double expected_s, FILE* out = stderr);

  // What begins now: "hot: 16 streams of pread, round 2 of 7". Adds how long it has been, and how long it may
  // still be.
  void say(const std::string& what);
  // So much of what was expected is done.
  void advance(double expected_s) { done_s_ += expected_s; }
  // The line goes: something else is to be printed.
  void clear();
  // How long the rest may take, if it has taken `elapsed_s` until now.
  [[nodiscard]] double remaining_s(double elapsed_s) const;

 private:
  FILE* out_;
  bool is_terminal_;
  bool has_line_ = false;
  double expected_s_;
  double done_s_ = 0;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace nvr::bench
