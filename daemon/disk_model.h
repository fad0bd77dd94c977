// What one spinning disk costs, learnt from what it did: how long it takes to get somewhere else and how fast
// it reads once it is there. From these follows how long to stay. Pure; disk thread only.
#pragma once

#include <algorithm>
#include <cstdint>

#include "shm/clock.h"

namespace nvr::daemon {

// A visit is brought in by segments, between which others can step in. Half a MiB is 3 ms of a disk of 160
// MB/s, and a loop or SATA device takes it as one request.
inline constexpr std::uint64_t kSegmentBytes = 512 << 10;
inline constexpr std::uint64_t kMinVisitBytes = 2 << 20;
inline constexpr std::uint64_t kMaxVisitBytes = 8 << 20;

class DiskModel {
 public:
  // The share of its bandwidth that a disk shall have with many streams. What is between visits that is
  // neither seek nor transfer (the queue, ourselves) costs another 5 to 10 %, hence more than the 0.7 that is
  // asked for.
  static constexpr double kTargetEfficiency = 0.8;

  // A segment has come: `bytes` in `service_ns`, from when the disk could begin with it. `sought`: it did not
  // follow what was read before it.
  void record(std::uint64_t bytes, std::uint64_t service_ns, bool sought) {
    const auto time = static_cast<double>(std::max<std::uint64_t>(service_ns, 1));
    const auto size = static_cast<double>(bytes);
    if (size / time > kMemoryBytesPerNs) return;  // it was there already
    busy_ns_ = kDecay * busy_ns_ + time;
    done_bytes_ = kDecay * done_bytes_ + size;
    if (sought) {
      seek_ns_ = kDecay * seek_ns_ + std::max(0.0, time - size / bytes_per_ns());
      seeks_ = kDecay * seeks_ + 1;
    } else {
      transfer_ns_ = kDecay * transfer_ns_ + time;
      transfer_bytes_ = kDecay * transfer_bytes_ + size;
    }
  }

  // While nothing is known: an ordinary disk of 7,200 rpm.
  [[nodiscard]] std::uint64_t positioning_ns() const {
    return static_cast<std::uint64_t>(seeks_ < 1 ? 12e6 : seek_ns_ / seeks_);
  }
  [[nodiscard]] std::uint64_t bytes_per_s() const { return static_cast<std::uint64_t>(bytes_per_ns() * 1e9); }
  // Of late: the time that the bytes alone would have taken, by the time that they took. 0 before the first.
  [[nodiscard]] double efficiency() const {
    return busy_ns_ == 0 ? 0 : std::min(1.0, done_bytes_ / bytes_per_ns() / busy_ns_);
  }

  // How many bytes to stay for: W / (W + B t) is the efficiency of a visit of W bytes.
  [[nodiscard]] std::uint64_t visit_bytes() const {
    const double wanted =
        kTargetEfficiency / (1 - kTargetEfficiency) * bytes_per_ns() * static_cast<double>(positioning_ns());
    const auto bytes = static_cast<std::uint64_t>(wanted) / kSegmentBytes * kSegmentBytes + kSegmentBytes;
    return std::clamp(bytes, kMinVisitBytes, kMaxVisitBytes);
  }
  // How long such a visit takes.
  [[nodiscard]] std::uint64_t visit_ns() const {
    return positioning_ns() + static_cast<std::uint64_t>(static_cast<double>(visit_bytes()) / bytes_per_ns());
  }

 private:
  static constexpr double kDecay = 31.0 / 32;       // what counts is the last 32 segments or seeks
  static constexpr double kMemoryBytesPerNs = 4.0;  // no spinning disk, but its cache or ours

  [[nodiscard]] double bytes_per_ns() const {
    return transfer_bytes_ == 0 ? 0.16 : transfer_bytes_ / transfer_ns_;
  }

  double seek_ns_ = 0, seeks_ = 0;
  double transfer_ns_ = 0, transfer_bytes_ = 0;
  double busy_ns_ = 0, done_bytes_ = 0;
};

}  // namespace nvr::daemon
