// How a stream's reader waits for news: it looks for a while, sleeps, or is told by an event loop when to
// look again. The other side of it is shm/wake.h's.
#include <unistd.h>

#include <algorithm>
#include <new>

#include "describe.h"
#include "shm/clock.h"
#include "shm/futex.h"
#include "shm/step.h"
#include "stream_reader.h"

namespace nvr::internal {
namespace {

using shm::DescriptorConsumer;

constexpr std::uint64_t kMaxSpinNs = 20'000;  // about what a sleep and a wake cost
constexpr std::uint64_t kMinSpinNs = 1'000;
constexpr std::uint64_t kOpeningSpinNs = 50'000;  // a cached recording's first chunk is there in about 30 us

// Readers of this process that spin or sleep at the moment.
std::atomic<std::uint32_t> waiting_readers = 0;
struct WaitingReader {
  WaitingReader() { waiting_readers.fetch_add(1, std::memory_order_relaxed); }
  WaitingReader(const WaitingReader&) = delete;
  WaitingReader& operator=(const WaitingReader&) = delete;
  ~WaitingReader() { waiting_readers.fetch_sub(1, std::memory_order_relaxed); }
};

}  // namespace

std::uint64_t StreamReader::initial_spin_ns() {
  static const std::uint64_t spin_ns = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? kMaxSpinNs : 0;
  return spin_ns;
}

// Is there anything to do but wait? Remembers what the futex word was if not.
bool StreamReader::has_news() {
  if (stopped_.load() != Code::kUnknown) return true;
  if (phase_ == Phase::kPromised) {
    const auto promise = connection_->try_keep_promise(channel_);
    if (promise.is_kept) phase_ = Phase::kClaimed;
    seen_head_ = promise.seen_head;
    return promise.is_kept;
  }
  const auto look = channel().descriptors.look();
  seen_head_ = channel().descriptors.seen_head();
  return look != DescriptorConsumer::Look::kEmpty;
}

// Waits for news, until `deadline_ns` or for one slice. Nothing: look again. Otherwise why the wait is over.
std::optional<Error> StreamReader::wait(std::uint64_t deadline_ns) {
  if (must_give_back()) return window_error();
  if (spin()) return std::nullopt;
  const WaitingReader waiting;
  Channel& c = channel();
  std::optional<Error> error;
  bool has_no_memory = false;  // for the error: no excuse for a sleep that never ends in the daemon's eyes
  c.unrung.set_reader_waiting(true);
  shm::sleep_unless([&c](auto&& call) { call(c.sleeper); }, [this] { return has_news(); },
                    [&] {
                      connection_->ring_for_credit(c);
                      try {
                        error = sleep(deadline_ns);
                      } catch (const std::bad_alloc&) {
                        has_no_memory = true;
                      }
                    });
  c.unrung.set_reader_waiting(polled_in_vain_);  // info() in the middle of an event loop
  if (has_no_memory) throw std::bad_alloc();
  return error;
}

std::optional<Error> StreamReader::sleep(std::uint64_t deadline_ns) {
  Channel& c = channel();
  const std::uint32_t stop_seen = c.stop_word.load();
  if (stopped_.load() != Code::kUnknown) return std::nullopt;  // before stop_seen was read
  const std::uint64_t slice_end_ns = shm::now_ns() + wait_slice_ns.load(std::memory_order_relaxed);
  NVR_STEP("client.about_to_sleep");
  shm::futex_wait_either(c.descriptors.futex_word(), seen_head_, c.stop_word, stop_seen,
                         std::min(deadline_ns, slice_end_ns));
  NVR_STEP("client.woken");
  const std::uint64_t now = shm::now_ns();
  if (now < slice_end_ns && now < deadline_ns) return std::nullopt;
  const auto alive = connection_->check_alive(&heartbeat_);
  if (has_news()) return std::nullopt;  // what was published before the daemon died comes first
  if (!alive) return alive.error();
  if (now >= deadline_ns) return deadline_error();
  return std::nullopt;
}

// As wait(), without waiting: the reader counts as waiting until it looks again, which an event loop tells it
// to. So it does with the window held: dropping a chunk is what brings its next news about.
std::optional<Error> StreamReader::poll() {
  Channel& c = channel();
  c.unrung.set_reader_waiting(true);
  polled_in_vain_ = true;
  if (has_news()) return std::nullopt;
  connection_->ring_for_credit(c);
  if (must_give_back()) return window_error();
  const auto alive = connection_->check_alive_sometimes(&heartbeat_);
  if (has_news()) return std::nullopt;
  return alive ? deadline_error() : alive.error();
}

// The reader looks again: from here on half a window at a time is enough for the daemon. What is given back
// unrung meanwhile is rung for when the reader finds nothing once more.
void StreamReader::stop_waiting() {
  if (std::exchange(polled_in_vain_, false)) channel().unrung.set_reader_waiting(false);
}

// Looks for a while before the thread sleeps: for as long as a sleep and a wake would take, if that was worth
// it lately, and if no other reader of the process waits: who spins beside others takes the CPU from them, or
// from the daemon. Only while the daemon is awake: one that has been rung for starts, as a rule, on the very
// CPU of the thread that rang, once that sleeps; and one that waits for the disk will wait for long.
bool StreamReader::spin() {
  if (spin_ns_ == 0 || waiting_readers.load(std::memory_order_relaxed) > 0) return false;
  const WaitingReader waiting;
  const std::uint64_t budget_ns = phase_ == Phase::kOpening ? kOpeningSpinNs : spin_ns_;
  const std::uint64_t deadline_ns = shm::now_ns() + budget_ns;
  while (!connection_->is_daemon_asleep()) {
    for (int i = 0; i < 32; ++i) shm::cpu_relax();
    if (has_news()) {
      spin_ns_ = kMaxSpinNs;
      return true;
    }
    if (shm::now_ns() >= deadline_ns) {
      spin_ns_ = std::max(spin_ns_ / 2, kMinSpinNs);
      return false;
    }
  }
  return false;
}

// Does the daemon wait for us, and we for it? Not for a terminal: that needs no slot.
bool StreamReader::must_give_back() const {
  return phase_ == Phase::kReading && position_ < end_ &&
         channel().held.load(std::memory_order_relaxed) == connection_->geometry().slots;
}

Error StreamReader::window_error() const {
  return {.code = Code::kResourceExhausted,
          .message = "all " + std::to_string(connection_->geometry().slots) +
                     " slots of the stream's window are held by chunks: drop one to go on"};
}

Error StreamReader::deadline_error() const {
  return {.code = Code::kDeadlineExceeded,
          .message = "recording " + to_string(request_.recording) + ": nothing arrived within the deadline" +
                     describe_stall(connection_->stuck_operation(), shm::now_ns())};
}

}  // namespace nvr::internal
