// What the soak's processes know of each other, in memory that they share: what the workers have done, which
// faults there have been, and whether it is time to end. Each number has one writer, unless it says
// otherwise.
#pragma once

#include <atomic>
#include <cstdint>

namespace nvr::soak {

constexpr std::uint32_t kMaxWorkers = 32;
constexpr std::uint32_t kCodes = 16;

// Of the workers, one after the other, that had this place. Written by the worker of the moment.
struct Account {
  std::atomic<std::uint64_t> bytes = 0;  // each compared
  std::atomic<std::uint64_t> streams = 0;
  std::atomic<std::uint64_t> completed = 0;  // streams that delivered their whole range
  std::atomic<std::uint64_t> cancels = 0;
  std::atomic<std::uint64_t> connections = 0;
  std::atomic<std::uint64_t> errors[kCodes] = {};  // by nvr::Code
  std::atomic<std::uint32_t> failed = 0;           // 1: `failure` says what was not as it must be
  char failure[400] = {};
};

struct Ledger {
  Account accounts[kMaxWorkers];
  std::atomic<std::uint32_t> stop = 0;  // the orchestrator's
  // When reads were last made to fail, and may fail no longer: CLOCK_MONOTONIC; UINT64_MAX while they fail.
  // The orchestrator's.
  std::atomic<std::uint64_t> fails_until_ns = 0;
};

}  // namespace nvr::soak
