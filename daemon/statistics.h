// Counters and latency histograms: written by one thread, read by any. Every access is relaxed: each number
// is exact by itself, and nothing is concluded from two of them together.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace nvr::daemon {

// Counts up. Sole writer: the thread that owns it.
class Counter {
 public:
  void add(std::uint64_t amount = 1) { value_.store(value() + amount, std::memory_order_relaxed); }
  void set(std::uint64_t value) { value_.store(value, std::memory_order_relaxed); }
  void subtract(std::uint64_t amount) { value_.store(value() - amount, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_ = 0;
};

// Durations by powers of two: bucket i counts those of less than 2^i microseconds (and at least 2^(i-1)); the
// last takes all that are longer, which is from 35 minutes on.
class Histogram {
 public:
  static constexpr std::size_t kBuckets = 33;

  void record_ns(std::uint64_t duration_ns) {
    const std::uint64_t us = duration_ns / 1000;
    buckets_[std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(us)), kBuckets - 1)].add();
    sum_ns_.add(duration_ns);
  }
  [[nodiscard]] std::uint64_t bucket(std::size_t index) const { return buckets_[index].value(); }
  [[nodiscard]] static std::uint64_t upper_bound_us(std::size_t index) { return std::uint64_t{1} << index; }
  [[nodiscard]] std::uint64_t sum_us() const { return sum_ns_.value() / 1000; }

 private:
  std::array<Counter, kBuckets> buckets_;
  Counter sum_ns_;
};

inline constexpr std::size_t kCodes = 16;    // of nvr::Code
inline constexpr std::size_t kErrnos = 134;  // EHWPOISON is the last

// The side to which a stream's error is due.
enum Blame : std::uint8_t {
  kRequestFailed,  // it asked for what is not there, or not allowed
  kDiskFailed,     // or the file system, or the daemon that serves it
  kBoundReached,   // the client holds as much as it may
};
inline constexpr std::size_t kBlames = 3;

// Written by the disk thread.
struct DiskStatistics {
  Counter opens;              // that reached the disk
  Counter chunks;             // published
  Counter bytes;              // in them
  Counter errors;             // streams that ended in one
  Counter wakes;              // futex wakes and socket bytes for clients
  Counter sleeps;             // of the disk thread
  Counter streams_open;       // now
  Counter streams_ended;      // now, of these: the disk still has an operation of theirs
  Counter streams_waiting;    // now: to be opened, or with room for more than they have
  Counter quarantined_bytes;  // now: slots in flight for streams that have been closed
  Counter reports_lost;       // of slow or failed operations, for want of room
  Counter answered_ns;        // when the disk last answered a read, or a DiskProbe (CLOCK_MONOTONIC)
  // What is known of a spinning disk (DiskModel), and what became of it.
  Counter visits;                             // begun
  Counter positioning_ns;                     // of a visit
  Counter disk_bytes_per_s;                   // once the head is there
  Counter visit_bytes;                        // how long a visit may be
  Counter visit_ns;                           // how long such a one takes
  Counter efficiency_ppm;                     // of the disk's bandwidth, of late
  Counter ahead_bytes;                        // now: brought in and not read yet
  Histogram open_time;                        // service time of an open
  Histogram read_time;                        // service time of a read of up to kMaxReadSlots chunks
  Histogram queue_wait;                       // from the command's arrival to the open's start
  Histogram first_chunk;                      // from the command's arrival to the first chunk's publication
  Histogram memory_time;                      // of read_time those that found all in memory
  Histogram disk_time;                        // and those for which the disk was asked
  std::array<Counter, kCodes> opens_by_code;  // what became of each OPEN; kCancelled: closed before
  std::array<Counter, kErrnos> errors_by_errno;  // of `errors`; 0: no system call failed
  std::array<Counter, kBlames> errors_by_blame;  // of `errors`
  // Streams that are open and have not ended. Of two counters that are read one after the other.
  [[nodiscard]] std::uint64_t streams_served() const {
    const std::uint64_t open = streams_open.value();
    return open - std::min(open, streams_ended.value());
  }
  Counter slots;       // now: of all connections
  Counter slots_lent;  // now: published and not returned
};

// Written by the control thread.
struct ControlStatistics {
  Counter is_serving;  // now: 1 once clients can connect
  Counter clients;     // now
  Counter controls;    // now: control connections
  Counter accepted;
  Counter refused;
  Counter violations;
  Counter shared_bytes;   // now: of clients, and held by those that have ended
  Counter held_bytes;     // now: of the latter
  Counter stalled_ns;     // in all: while some operation had been stuck for --slow-op-ms
  Counter refuses_opens;  // now: 1 by --fail-fast
  Counter lost_lines;     // of the log
};

}  // namespace nvr::daemon
