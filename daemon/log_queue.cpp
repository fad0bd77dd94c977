#include "daemon/log_queue.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <string_view>
#include <utility>

#include "daemon/limits.h"

namespace nvr::daemon {
namespace {

// Waits for the reader as long as it takes. False: it cannot be written.
bool write_whole(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written > 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (written < 0 && errno == EAGAIN) {
      pollfd entry = {.fd = fd, .events = POLLOUT, .revents = 0};
      poll(&entry, 1, -1);
    } else if (written == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<LogQueue>> LogQueue::start(Setup setup) {
  std::unique_ptr<LogQueue> queue(new LogQueue(std::move(setup)));
  auto thread = start_thread([self = queue.get()] { self->run(); }, "the thread that writes the log",
                             queue->setup_.on_start);
  if (!thread) return tl::unexpected(thread.error());
  queue->thread_ = std::move(*thread);
  return queue;
}

LogQueue::~LogQueue() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  filled_.notify_one();
  thread_.join();
}

void LogQueue::put(std::string line) {
  const std::lock_guard lock(mutex_);
  // Having lost lines, the queue takes new ones when half of it is free: not one at a time, with a notice
  // before each.
  const bool has_room = untold_ == 0 ? line.size() <= setup_.max_bytes - bytes_
                                     : bytes_ <= setup_.max_bytes / 2 && push_notice() &&
                                           line.size() <= setup_.max_bytes - bytes_;
  if (has_room) return push({.text = std::move(line)});
  ++lost_;
  ++untold_;
}

bool LogQueue::drain(std::chrono::milliseconds bound) {
  std::unique_lock lock(mutex_);
  return drained_.wait_for(lock, bound, [this] { return bytes_ == 0; });
}

std::uint64_t LogQueue::lost() const {
  const std::lock_guard lock(mutex_);
  return lost_;
}

void LogQueue::push(Line line) {
  bytes_ += line.text.size();
  lines_.push_back(std::move(line));
  filled_.notify_one();
}

bool LogQueue::push_notice() {
  std::string text = setup_.notice(untold_);
  if (text.size() > setup_.max_bytes - bytes_) return false;
  push({.text = std::move(text), .lost = std::exchange(untold_, 0)});
  return true;
}

void LogQueue::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    filled_.wait(lock, [this] { return stopping_ || !lines_.empty(); });
    if (stopping_) return;
    const Line line = std::move(lines_.front());
    lines_.pop_front();
    lock.unlock();
    const bool is_written = write_whole(setup_.fd, line.text);
    lock.lock();
    bytes_ -= line.text.size();
    if (!is_written) {  // the next line brings the next attempt
      untold_ += line.lost != 0 ? line.lost : 1;
      lost_ += line.lost != 0 ? 0 : 1;
    } else if (lines_.empty() && untold_ > 0) {
      static_cast<void>(push_notice());
    }
    if (bytes_ == 0) drained_.notify_all();
  }
}

}  // namespace nvr::daemon
