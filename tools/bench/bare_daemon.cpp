#include "tools/bench/bare_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <vector>

#include "shm/futex.h"
#include "shm/unique_fd.h"

namespace nvr::bench {
namespace {

constexpr std::size_t kNowhere = ~std::size_t{0};

}  // namespace

// Counters go up for ever: chunks of the stream since the start. Each side writes lines of its own.
struct BareStream {
  alignas(128) std::atomic<std::uint32_t> requests = 0;  // the client's; pairs with the server's acquire
  std::atomic<std::uint32_t> taken = 0;                  // likewise: these slots are free
  std::atomic<std::uint32_t> sleeps = 0;  // seq_cst, as wake.h has it; the server takes it back
  FileRange range = {};                   // of the last request
  std::uint32_t base = 0;                 // likewise: its first chunk, which goes to slot 0
  std::uint64_t left = 0;                 // the client's own: bytes of it to be taken

  alignas(128) std::atomic<std::uint32_t> published = 0;  // the server's; clients sleep on it
  std::atomic<std::uint32_t> answered = 0;                // the request that it is at
};

struct BareMemory {
  alignas(128) std::atomic<std::uint32_t> bell = 0;  // the server sleeps on it
  std::atomic<std::uint32_t> sleeps = 0;
  std::atomic<std::size_t> at = kNowhere;  // the stream that it fills; a hint
  std::atomic<int> failed = 0;             // errno, once it cannot go on
  std::atomic<std::size_t> streams_taken = 0;
  std::size_t streams = 0;
  std::uint32_t slots = 0;

  [[nodiscard]] BareStream& stream(std::size_t index) {
    return reinterpret_cast<BareStream*>(this + 1)[index];
  }
  [[nodiscard]] std::byte* slot(std::size_t index, std::uint32_t chunk) {
    return reinterpret_cast<std::byte*>(this) + windows_at(streams) +
           (index * slots + chunk % slots) * kChunkBytes;
  }
  [[nodiscard]] static std::size_t windows_at(std::size_t streams) {
    const std::size_t bytes = sizeof(BareMemory) + streams * sizeof(BareStream);
    return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  }
};

namespace {

// Longer than it takes to copy a chunk, much shorter than a thread's turn.
constexpr auto kSpin = std::chrono::microseconds(20);
constexpr std::uint32_t kVisit = 16;  // chunks of one stream before the next has its turn

// For a second at most: whether the other side still is what it was is looked at by the caller.
void sleep_on(const std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  const timespec second = {.tv_sec = 1, .tv_nsec = 0};
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &second, nullptr, 0);
}

// Whether `is_true()` becomes so within the time for which it pays not to sleep.
template <typename Condition>
bool spin_until(const Condition& is_true) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (is_true()) return true;
      __builtin_ia32_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

class BareServer {
 public:
  BareServer(BareMemory& memory, const FileSet& files, BareSource source)
      : memory_(memory), files_(files), source_(source), streams_(memory.streams) {}

  // Until it fails. Returns errno.
  [[nodiscard]] int serve() {
    if (source_ == BareSource::kMaps && !map_files()) return errno;
    for (;;) {
      bool worked = false;
      for (std::size_t index = 0; index < memory_.streams; ++index) {
        if (!has_work(index)) continue;
        worked = true;
        if (!visit(index)) return errno;
      }
      if (worked || spin_until([&] { return has_work(); })) continue;
      const std::uint32_t seen = memory_.bell.load();
      memory_.at.store(kNowhere, std::memory_order_relaxed);
      memory_.sleeps.store(1);  // seq_cst: before we look, as clients ring after they have written
      if (!has_work()) sleep_on(memory_.bell, seen);
      memory_.sleeps.store(0);
    }
  }

 private:
  struct Serving {
    std::uint32_t request = 0;
    FileRange left = {};
    std::uint32_t base = 0;
    shm::UniqueFd fd = {};
  };

  // This and what follows: false, with errno, when it cannot.
  [[nodiscard]] bool map_files() {
    for (std::size_t file = 0; file < files_.count(); ++file) {
      const shm::UniqueFd fd(::open(files_.path(file).c_str(), O_RDONLY | O_CLOEXEC));
      void* const map = mmap(nullptr, files_.file_bytes(), PROT_READ, MAP_SHARED, fd.get(), 0);
      if (map == MAP_FAILED) return false;
      maps_.push_back(static_cast<const std::byte*>(map));  // until the process ends
      static_cast<void>(sum_of_lines({maps_.back(), files_.file_bytes()}));
    }
    return true;
  }

  // What a visit would find: a request, or half of a window to fill.
  [[nodiscard]] bool has_work(std::size_t index) {
    BareStream& stream = memory_.stream(index);
    const Serving& serving = streams_[index];
    if (stream.requests.load(std::memory_order_acquire) != serving.request) return true;
    return serving.left.begin < serving.left.end && lent(stream) <= memory_.slots / 2;
  }
  [[nodiscard]] bool has_work() {
    for (std::size_t index = 0; index < memory_.streams; ++index)
      if (has_work(index)) return true;
    return false;
  }
  [[nodiscard]] static std::uint32_t lent(const BareStream& stream) {
    return stream.published.load(std::memory_order_relaxed) - stream.taken.load(std::memory_order_acquire);
  }

  [[nodiscard]] bool visit(std::size_t index) {
    BareStream& stream = memory_.stream(index);
    Serving& serving = streams_[index];
    memory_.at.store(index, std::memory_order_relaxed);
    const std::uint32_t request = stream.requests.load(std::memory_order_acquire);
    if (request != serving.request) {
      serving.request = request;
      serving.left = stream.range;
      serving.base = stream.base;
      if (!open(serving)) return false;
      stream.answered.store(request, std::memory_order_release);
    }
    for (std::uint32_t i = 0; i < kVisit && serving.left.begin < serving.left.end; ++i) {
      if (lent(stream) == memory_.slots) break;
      const std::uint32_t chunk = stream.published.load(std::memory_order_relaxed);
      if (!bring(serving, memory_.slot(index, chunk - serving.base))) return false;
      stream.published.store(chunk + 1);  // seq_cst: before we look who sleeps, who looks after it said so
    }
    // Who sleeps is woken for the whole visit; who is awake sees each chunk as it comes.
    if (stream.sleeps.load() != 0) {
      stream.sleeps.store(0);
      shm::futex_wake_one(stream.published);
    }
    return true;
  }

  [[nodiscard]] bool open(Serving& serving) {
    if (source_ == BareSource::kMaps || serving.left.begin == serving.left.end) return true;
    serving.fd = shm::UniqueFd(::open(files_.path(serving.left.file).c_str(), O_RDONLY | O_CLOEXEC));
    struct stat about = {};
    return serving.fd && fstat(serving.fd.get(), &about) == 0;
  }

  // The next chunk of what is left.
  [[nodiscard]] bool bring(Serving& serving, std::byte* to) {
    FileRange& left = serving.left;
    const std::size_t bytes = std::min<std::uint64_t>(kChunkBytes, left.end - left.begin);
    if (source_ == BareSource::kMaps) {
      std::memcpy(to, maps_[left.file] + left.begin, bytes);
    } else if (const ssize_t got = pread(serving.fd.get(), to, bytes, static_cast<off_t>(left.begin));
               got != static_cast<ssize_t>(bytes)) {
      if (got >= 0) errno = ENODATA;
      return false;
    }
    left.begin += bytes;
    if (left.begin == left.end) serving.fd.reset();
    return true;
  }

  BareMemory& memory_;
  const FileSet& files_;
  BareSource source_;
  std::vector<const std::byte*> maps_;
  std::vector<Serving> streams_;
};

}  // namespace

void BareDaemon::Unmap::operator()(BareMemory* memory) const {
  munmap(memory, bytes);
}

Result<BareDaemon> BareDaemon::start(const FileSet& files, std::size_t streams, std::uint32_t slots,
                                     BareSource source) {
  const std::size_t bytes = BareMemory::windows_at(streams) + streams * slots * kChunkBytes;
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "no shared memory");
  BareDaemon daemon(Memory(new (memory) BareMemory{.streams = streams, .slots = slots}, {.bytes = bytes}));
  for (std::size_t index = 0; index < streams; ++index) new (&daemon.memory_->stream(index)) BareStream;
  auto process = ChildProcess::fork([&] {
    madvise(memory, bytes, MADV_POPULATE_WRITE);  // our page tables
    daemon.memory_->failed = BareServer(*daemon.memory_, files, source).serve();
    return 1;
  });
  if (!process) return tl::unexpected(process.error());
  daemon.process_ = std::move(*process);
  return daemon;
}

void BareDaemon::ring() {
  if (memory_->sleeps.load() == 0) return;
  memory_->sleeps.store(0);
  memory_->bell.fetch_add(1);
  shm::futex_wake_one(memory_->bell);
}

std::size_t BareDaemon::take_streams(std::size_t count) {
  return memory_->streams_taken.fetch_add(count);
}

void BareDaemon::open(std::size_t stream, const FileRange& range) {
  BareStream& state = memory_->stream(stream);
  state.range = range;
  state.base = state.taken.load(std::memory_order_relaxed);
  state.left = range.end - range.begin;
  state.requests.fetch_add(1);
  ring();
}

Result<std::optional<std::span<const std::byte>>> BareDaemon::next(std::size_t stream) {
  BareStream& state = memory_->stream(stream);
  if (state.left == 0) return std::nullopt;
  const std::uint32_t taken = state.taken.load(std::memory_order_relaxed);
  const auto is_there = [&] { return state.published.load(std::memory_order_acquire) != taken; };
  // Who spins while the server is at another stream takes the CPU from that one's reader.
  const auto is_far = [&] { return memory_->at.load(std::memory_order_relaxed) != stream; };
  while (!is_there() && !(spin_until([&] { return is_there() || is_far(); }) && is_there())) {
    if (const int failed = memory_->failed) return fail_errno(failed, "the bare daemon cannot go on");
    state.sleeps.store(1);  // seq_cst, as above
    if (state.published.load() == taken) sleep_on(state.published, taken);
  }
  return std::span<const std::byte>(memory_->slot(stream, taken - state.base),
                                    std::min<std::uint64_t>(kChunkBytes, state.left));
}

void BareDaemon::release(std::size_t stream) {
  BareStream& state = memory_->stream(stream);
  state.left -= std::min<std::uint64_t>(kChunkBytes, state.left);
  const std::uint32_t taken = state.taken.load(std::memory_order_relaxed) + 1;
  state.taken.store(taken);
  if (state.left > 0 && state.published.load(std::memory_order_relaxed) - taken <= memory_->slots / 2) ring();
}

void BareDaemon::close(std::size_t stream) {
  BareStream& state = memory_->stream(stream);
  if (state.left == 0) return;
  open(stream, {});  // an empty range instead
  while (state.answered.load(std::memory_order_acquire) != state.requests.load(std::memory_order_relaxed) &&
         memory_->failed == 0)
    sched_yield();
  state.taken.store(state.published.load(std::memory_order_acquire));
}

}  // namespace nvr::bench
