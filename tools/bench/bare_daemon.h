// The least that a daemon with one disk thread can be: "bare". A process whose thread brings the bytes of
// ranges to windows in shared memory, and wakes who sleeps; no protocol, no limits, no clients that may lie,
// no disk that may hang. Where it misses a target, too, none of these is the cause.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "tools/bench/child_process.h"
#include "tools/bench/system.h"

namespace nvr::bench {

struct BareMemory;

// Where the bytes come from.
enum class BareSource {
  kMaps,   // of the recordings, made before, every page in place
  kReads,  // each range is opened, looked at, read and closed
};

// Its clients are the process that starts it and those that are forked from it afterwards. Calls for one
// stream come from one thread at a time.
class BareDaemon {
 public:
  // Forks: before the caller has threads that hold locks.
  [[nodiscard]] static Result<BareDaemon> start(const FileSet& files, std::size_t streams,
                                                std::uint32_t slots, BareSource source);
  [[nodiscard]] pid_t pid() const { return process_.pid(); }

  // So many that nobody has yet, also in another process. The first of them.
  [[nodiscard]] std::size_t take_streams(std::size_t count);
  // The stream is not open.
  void open(std::size_t stream, const FileRange& range);
  // Waits for the next chunk, which is the caller's until release(). None: the range has been delivered.
  [[nodiscard]] Result<std::optional<std::span<const std::byte>>> next(std::size_t stream);
  void release(std::size_t stream);
  // Whether or not all has been delivered. No chunk is the caller's. Returns when nothing more comes.
  void close(std::size_t stream);

 private:
  struct Unmap {
    std::size_t bytes = 0;
    void operator()(BareMemory* memory) const;
  };
  using Memory = std::unique_ptr<BareMemory, Unmap>;

  explicit BareDaemon(Memory memory) : memory_(std::move(memory)) {}
  void ring();

  Memory memory_;
  ChildProcess process_;
};

// A client of its own `streams`, which are the next ones that no client has yet. The daemon stays until it
// goes.
[[nodiscard]] std::unique_ptr<System> make_bare_client_system(std::shared_ptr<BareDaemon> daemon,
                                                              std::size_t streams);

}  // namespace nvr::bench
