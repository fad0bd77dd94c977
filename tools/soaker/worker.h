// One client of the soak, a process of its own: streams at random, every byte compared, errors judged.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/lab/process.h"
#include "tools/lab/recording_file.h"
#include "tools/soaker/ledger.h"

namespace nvr::soak {

struct WorkerSetup {
  std::string socket;
  bool reads_direct = false;  // the engine has CachePolicy::kDirect
  const std::vector<lab::RecordingFile>& files;
  std::uint64_t seed = 0;
};

// Starts one, which runs until the ledger says stop, something is wrong, or it is killed.
[[nodiscard]] lab::Process start_worker(const WorkerSetup& setup, Ledger& ledger, std::uint32_t place);

}  // namespace nvr::soak
