// What others may know of a stream: written by the disk thread, read by any. Each number is exact by itself;
// a reader that looks while the stream is opened or ends may see the old beside the new.
//
// An operation costs three relaxed stores at most, into a cache line of the stream's own; a chunk none.
#pragma once

#include <atomic>
#include <cstdint>

#include "nvr/recording.h"
#include "shm/protocol.h"

namespace nvr::daemon {

enum class StreamState : std::uint8_t {
  kIdle,     // the terminal has been published, or nothing was ever opened
  kQueued,   // OPEN was taken; the disk has not been asked yet
  kOpening,  // the open is with the engine
  kReading,
  kEnding,  // the terminal is decided and waits for what is in flight
};

// Whom a stream waits for now.
enum class StreamWait : std::uint8_t {
  kNothing,
  kQueue,   // its turn
  kDisk,    // something of it is with the engine
  kReader,  // every slot of its window is full or held
};

class StreamFacts {
 public:
  // ---- Disk thread.
  void opened(const shm::Command& command, std::uint64_t now_ns) {
    const bool to_end = (command.flags & shm::kOpenToEnd) != 0;
    set(generation_, command.generation);
    set(recording_, command.recording);
    set(begin_, command.begin);
    set(end_, to_end ? kToEnd : command.end);
    set(position_, command.begin);
    set(opened_ns_, now_ns);
    priority_.store(command.priority, std::memory_order_relaxed);
    cache_.store(command.cache, std::memory_order_relaxed);
  }
  void set_end(std::uint64_t end) { set(end_, end); }
  // `position`: up to where it has been delivered. The wait is a new one when anything has changed.
  void show(StreamState state, StreamWait wait, std::uint64_t position, std::uint64_t now_ns) {
    const bool has_moved = position_.load(std::memory_order_relaxed) != position;
    if (has_moved) set(position_, position);
    const auto what = static_cast<std::uint64_t>(state) << kWaitBits | static_cast<std::uint64_t>(wait);
    if (has_moved || what != (doing_.load(std::memory_order_relaxed) & kWhatMask))
      set(doing_, now_ns << kWhatBits | what);
  }

  // ---- Any thread.
  struct Snapshot {
    std::uint64_t generation = 0;
    std::uint64_t recording = 0;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;  // kToEnd: not known yet
    std::uint64_t position = 0;
    std::uint64_t opened_ns = 0;
    Priority priority{};
    CachePolicy cache{};
    StreamState state{};
    StreamWait wait{};
    std::uint64_t since_ns = 0;  // of the wait
  };
  [[nodiscard]] Snapshot snapshot() const {
    const std::uint64_t doing = get(doing_);
    return {.generation = get(generation_),
            .recording = get(recording_),
            .begin = get(begin_),
            .end = get(end_),
            .position = get(position_),
            .opened_ns = get(opened_ns_),
            .priority = priority_.load(std::memory_order_relaxed),
            .cache = cache_.load(std::memory_order_relaxed),
            .state = static_cast<StreamState>((doing & kWhatMask) >> kWaitBits),
            .wait = static_cast<StreamWait>(doing & ((1 << kWaitBits) - 1)),
            .since_ns = doing >> kWhatBits};
  }

  static constexpr std::uint64_t kToEnd = UINT64_MAX;

 private:
  using Fact = std::atomic<std::uint64_t>;
  // Since when, the state and the wait in one word, so that they fit together. 58 bits of nanoseconds are
  // nine years of uptime.
  static constexpr unsigned kWaitBits = 3;
  static constexpr unsigned kWhatBits = 6;
  static constexpr std::uint64_t kWhatMask = (1 << kWhatBits) - 1;

  static void set(Fact& fact, std::uint64_t value) { fact.store(value, std::memory_order_relaxed); }
  static std::uint64_t get(const Fact& fact) { return fact.load(std::memory_order_relaxed); }

  alignas(64) Fact doing_ = 0;
  Fact position_ = 0;
  Fact generation_ = 0;
  Fact recording_ = 0;
  Fact begin_ = 0;
  Fact end_ = 0;
  Fact opened_ns_ = 0;
  std::atomic<Priority> priority_ = Priority::kPlayback;
  std::atomic<CachePolicy> cache_ = CachePolicy::kNormal;
};

}  // namespace nvr::daemon
