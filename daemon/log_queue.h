// Lines on their way to a descriptor whose reader may be slow, or not read at all: a pipe, a terminal, the
// journal, a file on a dying disk. A queue bounded in bytes, and a thread of its own that writes them.
//
// put() never waits for the reader. A line that does not fit, or that cannot be written, is lost and counted;
// a notice takes its place in the log as soon as there is room.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "nvr/error.h"

namespace nvr::daemon {

class LogQueue {
 public:
  struct Setup {
    int fd = -1;  // borrowed; blocking or not
    std::size_t max_bytes = 0;
    // The line that tells of this many lost ones. Called under the queue's lock.
    std::function<std::string(std::uint64_t lost)> notice;
    std::function<void()> on_start = [] {};  // on the queue's thread, before all else
  };

  // Returns once `on_start` has been called. ResourceExhausted when there is no thread to be had.
  [[nodiscard]] static Result<std::unique_ptr<LogQueue>> start(Setup setup);
  // Waits for a write that is under way; lines that are still queued are not written.
  ~LogQueue();
  LogQueue(const LogQueue&) = delete;
  LogQueue& operator=(const LogQueue&) = delete;

  // Any thread.
  void put(std::string line);  // with its newline
  // Waits until all lines are written, but no longer than `bound`. Are they?
  [[nodiscard]] bool drain(std::chrono::milliseconds bound);
  [[nodiscard]] std::uint64_t lost() const;

 private:
  struct Line {
    std::string text;
    std::uint64_t lost = 0;  // a notice: the lines that it tells of
  };

  explicit LogQueue(Setup setup) : setup_(std::move(setup)) {}

  void run();
  void push(Line line);
  [[nodiscard]] bool push_notice();

  Setup setup_;
  mutable std::mutex mutex_;
  std::condition_variable filled_;
  std::condition_variable drained_;
  std::deque<Line> lines_;
  std::size_t bytes_ = 0;     // of the queued lines, and of the one that is being written
  std::uint64_t lost_ = 0;    // in all
  std::uint64_t untold_ = 0;  // of them those that no notice tells of yet
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace nvr::daemon
