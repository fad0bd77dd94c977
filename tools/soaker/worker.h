// One client of the soak, a process of its own: streams at random, every byte compared, errors judged.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tools/soaker/ledger.h"

namespace nvr::soak {

struct WorkerSetup {
  std::string socket;
  bool reads_direct = false;           // the engine has CachePolicy::kDirect
  std::vector<std::uint64_t> lengths;  // of the recordings 1/0, 1/1, ...
  std::uint64_t seed = 0;
};

// Starts one, which runs until the ledger says stop, something is wrong, or it is killed. The pid, or -1
// (errno).
[[nodiscard]] pid_t start_worker(const WorkerSetup& setup, Ledger& ledger, std::uint32_t place);

}  // namespace nvr::soak
