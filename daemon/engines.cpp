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
                                 const Device& device, std::uint32_t io_depth) {
  ChosenEngine chosen;
  if (name != "mmap") {
    if (io_depth == 0) io_depth = device.rotational ? kRotationalDepth : kSolidDepth;
    auto engine = IoUringEngine::create(directory, wakeups, io_depth);
    if (engine) {
      chosen.engine = std::move(*engine);
      return chosen;
    }
    if (name == "io_uring") return tl::unexpected(engine.error());
    chosen.note = engine.error().message;
  }
  auto engine = MmapEngine::create(directory, wakeups);
  if (!engine) return tl::unexpected(engine.error());
  chosen.engine = std::move(*engine);
  return chosen;
}

}  // namespace nvr::daemon
