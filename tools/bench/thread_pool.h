// Sixteen threads that read for others, as tokio::fs, libuv and nginx's aio have them: a read is a job in one
// queue behind a mutex and a condition variable, and its completion wakes whoever waits for it. So a chunk
// costs two hand-offs, and a stream has at most one read on its way.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "shm/unique_fd.h"
#include "tools/bench/system.h"

namespace nvr::bench {

class ThreadPool {
 public:
  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  // Reads into the stream's one buffer; opens the file first, in the same job, if `path` is given. From any
  // thread, when the stream's read before has been taken. The first starts the threads.
  void read(std::size_t stream, std::string path, std::uint64_t offset, std::size_t bytes);
  // Waits for that. The bytes, valid until the next read().
  [[nodiscard]] Result<std::span<const std::byte>> take(std::size_t stream);
  void close(std::size_t stream);

 private:
  struct Job {
    std::size_t stream = 0;
    std::string path;
    std::uint64_t offset = 0;
    std::size_t bytes = 0;
  };
  // Of one stream: of the pool's while a job is on its way, of the stream's owner otherwise.
  struct Place {
    shm::UniqueFd fd = {};
    std::vector<std::byte> buffer = {};
    std::mutex mutex = {};
    std::condition_variable done = {};
    bool has_answer = false;
    ssize_t got = 0;
    int sys_errno = 0;
  };

  void start();
  void run();
  void perform(const Job& job);

  std::mutex mutex_;
  std::condition_variable wanted_;
  std::deque<Job> jobs_;
  bool ends_ = false;
  std::array<Place, kMaxStreams> places_;
  std::once_flag started_;
  std::vector<std::thread> threads_;
};

}  // namespace nvr::bench
