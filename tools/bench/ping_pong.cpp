#include "tools/bench/ping_pong.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <memory>
#include <new>
#include <thread>

#include "shm/unique_fd.h"
#include "tools/bench/child_process.h"

namespace nvr::bench {
namespace {

// One direction: signal() in one process ends one wait() in the other. Nobody signals again before that.
class Bell {
 public:
  virtual ~Bell() = default;
  virtual void signal() = 0;
  virtual void wait() = 0;
};

class FutexBell final : public Bell {
 public:
  explicit FutexBell(std::atomic<std::uint32_t>& word) : word_(word) {}
  void signal() override {
    word_.fetch_add(1, std::memory_order_release);  // pairs with wait()'s load
    syscall(SYS_futex, &word_, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }
  void wait() override {
    while (word_.load(std::memory_order_acquire) == seen_)
      syscall(SYS_futex, &word_, FUTEX_WAIT, seen_, nullptr, nullptr, 0);
    ++seen_;
  }

 private:
  std::atomic<std::uint32_t>& word_;
  std::uint32_t seen_ = 0;  // of the process that waits
};

class EventfdBell final : public Bell {
 public:
  explicit EventfdBell(shm::UniqueFd fd) : fd_(std::move(fd)) {}
  void signal() override {
    const std::uint64_t one = 1;
    static_cast<void>(!write(fd_.get(), &one, sizeof(one)));
  }
  void wait() override {
    std::uint64_t value = 0;
    while (read(fd_.get(), &value, sizeof(value)) != sizeof(value)) {
    }
  }

 private:
  shm::UniqueFd fd_;
};

// The words of both directions, on lines of their own, shared with the child.
struct Words {
  alignas(128) std::atomic<std::uint32_t> there = 0;
  alignas(128) std::atomic<std::uint32_t> back = 0;
};
struct Unmap {
  void operator()(Words* words) const { munmap(words, sizeof(Words)); }
};

Histogram round_trips(Bell& there, Bell& back, std::size_t count, std::chrono::nanoseconds pause) {
  Histogram halves;
  for (std::size_t i = 0; i < count; ++i) {
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
    const auto started = std::chrono::steady_clock::now();
    there.signal();
    back.wait();
    const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - started;
    halves.add(static_cast<std::uint64_t>(took.count()) / 2);
  }
  return halves;
}

}  // namespace

Result<Histogram> measure_wakes(Wake wake, std::size_t count, std::chrono::nanoseconds pause) {
  void* const memory =
      mmap(nullptr, sizeof(Words), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "no shared memory");
  const std::unique_ptr<Words, Unmap> words(new (memory) Words);
  const auto make_bell = [&](std::atomic<std::uint32_t>& word) -> std::unique_ptr<Bell> {
    if (wake == Wake::kFutex) return std::make_unique<FutexBell>(word);
    return std::make_unique<EventfdBell>(shm::UniqueFd(eventfd(0, EFD_CLOEXEC)));
  };
  const auto there = make_bell(words->there);
  const auto back = make_bell(words->back);
  const auto child = ChildProcess::fork([&]() -> int {
    for (;;) {
      there->wait();
      back->signal();
    }
  });
  if (!child) return tl::unexpected(child.error());
  return round_trips(*there, *back, count, pause);
}

}  // namespace nvr::bench
