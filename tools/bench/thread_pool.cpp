#include "tools/bench/thread_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

namespace nvr::bench {
namespace {

constexpr std::size_t kThreads = 16;

}  // namespace

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  wanted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::start() {
  for (std::size_t i = 0; i < kThreads; ++i) threads_.emplace_back(&ThreadPool::run, this);
}

void ThreadPool::read(std::size_t stream, std::string path, std::uint64_t offset, std::size_t bytes) {
  std::call_once(started_, &ThreadPool::start, this);
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({.stream = stream, .path = std::move(path), .offset = offset, .bytes = bytes});
  }
  wanted_.notify_one();
}

Result<std::span<const std::byte>> ThreadPool::take(std::size_t stream) {
  Place& place = places_[stream];
  std::unique_lock lock(place.mutex);
  place.done.wait(lock, [&] { return place.has_answer; });
  place.has_answer = false;
  if (place.got < 0) return fail_errno(place.sys_errno, "the thread pool cannot read");
  return std::span<const std::byte>(place.buffer).first(static_cast<std::size_t>(place.got));
}

void ThreadPool::close(std::size_t stream) {
  places_[stream].fd.reset();
}

void ThreadPool::run() {
  for (;;) {
    std::unique_lock lock(mutex_);
    wanted_.wait(lock, [&] { return ends_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    perform(job);
  }
}

void ThreadPool::perform(const Job& job) {
  Place& place = places_[job.stream];
  if (!job.path.empty()) place.fd = shm::UniqueFd(::open(job.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (place.buffer.empty()) place.buffer.resize(kChunkBytes);
  const ssize_t got =
      place.fd ? pread(place.fd.get(), place.buffer.data(), job.bytes, static_cast<off_t>(job.offset)) : -1;
  const int error = errno;
  {
    const std::lock_guard lock(place.mutex);
    place.got = got;
    place.sys_errno = error;
    place.has_answer = true;
  }
  place.done.notify_one();
}

}  // namespace nvr::bench
