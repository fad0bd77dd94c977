// How often the log may say the same kind of thing: a burst, then a line a second; and that lines were left
// out, ten seconds after the first of them. Pure. One thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "shm/clock.h"

namespace nvr::daemon {

// The kinds of lines that somebody else's doings bring about, as often as they like.
enum class LogKind : std::uint8_t {
  kAccept,
  kRefusal,       // clients that were not let in
  kOffence,       // clients that broke the protocol
  kConnect,       // clients that came
  kDisconnect,    // and went
  kDisconnected,  // or were sent away
  kSlow,          // operations of the disk
  kDiskError,
  kEngine,
  kSignal,
  kCount,
};

class LogLimiter {
 public:
  static constexpr std::uint64_t kBurst = 50;
  static constexpr std::uint64_t kIntervalNs = shm::kSecond;
  static constexpr std::uint64_t kReportNs = 10 * shm::kSecond;

  // May a line of this kind be said now? If not, it has been counted.
  [[nodiscard]] bool admits(LogKind kind, std::uint64_t now_ns) {
    Account& account = accounts_[static_cast<std::size_t>(kind)];
    const std::uint64_t earned_ns = std::max(account.earned_ns, now_ns) + kIntervalNs;
    if (earned_ns > now_ns + kBurst * kIntervalNs) {
      if (account.left_out++ == 0) account.report_ns = now_ns + kReportNs;
      return false;
    }
    account.earned_ns = earned_ns;
    return true;
  }

  struct LeftOut {
    LogKind kind{};
    std::uint64_t lines = 0;
  };
  // A kind of which it is time to say how many lines were left out, once. Ask until there is none.
  [[nodiscard]] std::optional<LeftOut> take_due(std::uint64_t now_ns) {
    for (std::size_t i = 0; i < accounts_.size(); ++i) {
      if (accounts_[i].left_out == 0 || now_ns < accounts_[i].report_ns) continue;
      return LeftOut{static_cast<LogKind>(i), std::exchange(accounts_[i].left_out, 0)};
    }
    return std::nullopt;
  }
  // When to ask, at the latest; UINT64_MAX: nothing was left out.
  [[nodiscard]] std::uint64_t next_due_ns() const {
    std::uint64_t next_ns = UINT64_MAX;
    for (const Account& account : accounts_)
      if (account.left_out > 0) next_ns = std::min(next_ns, account.report_ns);
    return next_ns;
  }

 private:
  struct Account {
    std::uint64_t earned_ns = 0;  // until when lines have been said in advance
    std::uint64_t left_out = 0;
    std::uint64_t report_ns = 0;
  };
  std::array<Account, static_cast<std::size_t>(LogKind::kCount)> accounts_;
};

}  // namespace nvr::daemon
