#include "daemon/engines.h"

#include "daemon/io_uring_engine.h"
#include "daemon/mmap_engine.h"

namespace nvr::daemon {
namespace {

// A spinning disk's queue is kept shallow: submission blocks when it is full, and a new stream waits for all
// of it.
constexpr std::uint32_t kRotationalDepth = 4;
constexpr std::uint32_t kSolidDepth = 32;

}  // namespace

Result<ChosenEngine> make_engine(const std::string& name, const SampleDir& directory, int wakeups,
                                 const Device& device, const EngineSetup& setup) {
  ChosenEngine chosen;
  if (name != "mmap") {
    const std::uint32_t depth = setup.io_depth != 0 ? setup.io_depth
                                : device.rotational ? kRotationalDepth
                                                    : kSolidDepth;
    auto engine = IoUringEngine::create(directory, wakeups, depth, setup.restrict_ring, device.request_bytes);
    if (engine) {
      chosen.engine = std::move(*engine);
      return chosen;
    }
    if (name == "io_uring") return tl::unexpected(engine.error());
    chosen.note = engine.error().message;
  }
  auto engine = MmapEngine::create(directory, device.request_bytes);
  if (!engine) return tl::unexpected(engine.error());
  chosen.engine = std::move(*engine);
  return chosen;
}

}  // namespace nvr::daemon
