// "thread_pool": sixteen threads that read for others, as tokio::fs, libuv and nginx's aio have them. A read
// is a job in one queue behind a mutex and a condition variable, and its completion wakes whoever waits for
// it: a chunk costs two hand-offs, and a stream has at most one read on its way. Opening reads the first
// chunk in the same job; the next one is asked for when the consumer is done with a chunk, as tasks of an
// event loop would.
#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "shm/unique_fd.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

class ThreadPoolSystem final : public System {
 public:
  explicit ThreadPoolSystem(const SystemSetup& setup) : files_(setup.files), streams_(setup.streams) {}
  ~ThreadPoolSystem() override {
    {
      const std::lock_guard lock(mutex_);
      ends_ = true;
    }
    wanted_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  [[nodiscard]] std::string_view name() const override { return "thread_pool"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    streams_[stream].left = range;
    ask(stream);
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Taker& taker) override {
    Stream& state = streams_[stream];
    if (!state.asked) return false;
    wait(state);
    if (!state.outcome) return tl::unexpected(state.outcome.error());
    taker.take(state.buffer);
    state.left.begin += state.buffer.size();
    ask(stream);
    return true;
  }

  void close(std::size_t stream) override {
    Stream& state = streams_[stream];
    if (state.asked) wait(state);
    state.fd.reset();
  }

 private:
  static constexpr std::size_t kThreads = 16;

  // The pool's while a job is on its way, otherwise of whoever calls for the stream.
  struct Stream {
    FileRange left = {};
    bool asked = false;  // a chunk is on its way
    shm::UniqueFd fd = {};
    std::vector<std::byte> buffer = {};
    Result<void> outcome = {};
    std::mutex mutex = {};
    std::condition_variable done = {};
    bool has_answer = false;
  };

  // The first one starts the threads.
  void ask(std::size_t stream) {
    Stream& state = streams_[stream];
    if (state.left.begin == state.left.end) return;
    state.asked = true;
    std::call_once(started_, [this] {
      for (std::size_t i = 0; i < kThreads; ++i) threads_.emplace_back(&ThreadPoolSystem::run, this);
    });
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(stream);
    }
    wanted_.notify_one();
  }

  static void wait(Stream& state) {
    std::unique_lock lock(state.mutex);
    state.done.wait(lock, [&] { return state.has_answer; });
    state.has_answer = false;
    state.asked = false;
  }

  void run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wanted_.wait(lock, [&] { return ends_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      Stream& state = streams_[jobs_.front()];
      jobs_.pop_front();
      lock.unlock();
      state.outcome = read(state);
      {
        const std::lock_guard answer(state.mutex);
        state.has_answer = true;
      }
      state.done.notify_one();
    }
  }

  [[nodiscard]] Result<void> read(Stream& state) const {
    if (!state.fd) {
      auto fd = files_.open(state.left.file);
      if (!fd) return tl::unexpected(fd.error());
      state.fd = std::move(*fd);
    }
    state.buffer.resize(std::min<std::uint64_t>(kChunkBytes, state.left.end - state.left.begin));
    const ssize_t got =
        pread(state.fd.get(), state.buffer.data(), state.buffer.size(), static_cast<off_t>(state.left.begin));
    if (got == static_cast<ssize_t>(state.buffer.size())) return {};
    return fail_errno(got < 0 ? errno : EIO, "the thread pool cannot read");
  }

  const FileSet& files_;
  std::vector<Stream> streams_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::deque<std::size_t> jobs_;  // streams
  bool ends_ = false;
  std::once_flag started_;
  std::vector<std::thread> threads_;
};

}  // namespace

Result<std::unique_ptr<System>> make_thread_pool_system(const SystemSetup& setup) {
  return std::make_unique<ThreadPoolSystem>(setup);
}

}  // namespace nvr::bench
