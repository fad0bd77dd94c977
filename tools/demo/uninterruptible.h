// How long the threads of a process were in uninterruptible sleep (state D): sampled from
// /proc/<pid>/task/*/stat. A thread in D cannot be killed, and whatever it had to do waits.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>

namespace nvr::demo {

class UninterruptibleSleep {
 public:
  explicit UninterruptibleSleep(pid_t pid) : pid_(pid) {}

  // Looks at all threads of the process, once. To be called every few milliseconds.
  void sample();

  // The longest time during which every sample found the same thread in D, up to the sample before and after
  // it; 0: no sample ever found one.
  [[nodiscard]] std::chrono::milliseconds longest() const { return longest_; }
  [[nodiscard]] std::uint64_t samples() const { return samples_; }  // of threads

 private:
  using Clock = std::chrono::steady_clock;

  pid_t pid_;
  std::map<pid_t, Clock::time_point> since_;  // threads that were in D at the last sample, and since when
  Clock::time_point last_ = Clock::now();
  std::chrono::milliseconds longest_{0};
  std::uint64_t samples_ = 0;
};

}  // namespace nvr::demo
