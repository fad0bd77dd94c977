// Descriptors that clients cost the daemon: for their connections, for memory that they keep, for open files.
// Bounded per user and in all, so that what accept and control need is always left.
//
// Any thread may take and give back. Everything else is the control thread's.
#pragma once

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdint>
#include <map>

namespace nvr::daemon {

class DescriptorBudget {
  // How many are in use, of as many as may be. Relaxed: counts, that nothing else hangs on.
  class Count {
   public:
    explicit Count(std::uint64_t most) : most_(most) {}
    [[nodiscard]] bool take(std::uint32_t count, std::uint64_t most) {
      const std::uint64_t before = in_use_.fetch_add(count, std::memory_order_relaxed);
      if (before + count <= most) return true;
      give_back(count);
      return false;
    }
    void give_back(std::uint32_t count) {
      [[maybe_unused]] const std::uint64_t before = in_use_.fetch_sub(count, std::memory_order_relaxed);
      assert(before >= count);
    }
    [[nodiscard]] std::uint64_t most() const { return most_; }
    [[nodiscard]] std::uint64_t in_use() const { return in_use_.load(std::memory_order_relaxed); }

   private:
    std::uint64_t most_;
    std::atomic<std::uint64_t> in_use_ = 0;
  };

 public:
  // Of a connection: socket, pidfd, doorbell, two segments, those for its client, and one open file, so that
  // each connection can read.
  static constexpr std::uint32_t kOfConnection = 8;
  // Of its segments, while the client keeps them.
  static constexpr std::uint32_t kOfKeptMemory = 2;

  // `most`: in all. `suffices`: for whatever the other bounds allow, so that no user needs to be held back
  // for another's sake; else one user other than the daemon's and root gets half, and all such users together
  // seven eighths.
  struct Bounds {
    std::uint64_t most = UINT64_MAX;
    bool suffices = true;
  };

  enum class Verdict : std::uint8_t { kTaken, kUserHasAll, kNoneLeft };

  // One user's.
  class Share {
   public:
    Share(Count& all, std::uint64_t most, std::uint64_t most_in_all)
        : all_(&all), own_(most), most_in_all_(most_in_all) {}

    [[nodiscard]] Verdict take(std::uint32_t count) {
      if (!own_.take(count, own_.most())) return Verdict::kUserHasAll;
      if (all_->take(count, most_in_all_)) return Verdict::kTaken;
      own_.give_back(count);
      return Verdict::kNoneLeft;
    }
    void give_back(std::uint32_t count) {
      own_.give_back(count);
      all_->give_back(count);
    }
    // The bound that `refusal` is about.
    [[nodiscard]] std::uint64_t most(Verdict refusal) const {
      return refusal == Verdict::kUserHasAll ? own_.most() : most_in_all_;
    }
    [[nodiscard]] std::uint64_t in_use() const { return own_.in_use(); }

   private:
    Count* all_;
    Count own_;
    std::uint64_t most_in_all_;
  };

  explicit DescriptorBudget(Bounds bounds) : bounds_(bounds), all_(bounds.most) {}

  // Stays where it is. There are no more than users that may connect.
  [[nodiscard]] Share& share_of(std::uint32_t uid, bool is_privileged) {
    const bool is_bounded = !is_privileged && !bounds_.suffices;
    const std::uint64_t most = bounds_.most;
    const std::uint64_t least = kOfConnection;
    const std::uint64_t own = is_bounded ? std::max(least, most / 2) : UINT64_MAX;
    const std::uint64_t in_all = is_bounded ? std::max(least, most - most / 8) : most;
    return shares_.try_emplace(uid, all_, own, in_all).first->second;
  }
  [[nodiscard]] std::uint64_t in_use() const { return all_.in_use(); }

 private:
  Bounds bounds_;
  Count all_;
  std::map<std::uint32_t, Share> shares_;
};

}  // namespace nvr::daemon
