// One way to bring the bytes of recordings to consumers: what nvr-bench compares. Calls for one stream come
// from one thread at a time; calls for different streams may come from different threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nvr/error.h"
#include "tools/bench/files.h"

namespace nvr::bench {

inline constexpr std::size_t kUsualStreams = 16;
inline constexpr std::uint32_t kSlotsPerStream = 32;  // of nvr-readerd's streams

// What is done with a stream's chunks.
class Taker {
 public:
  virtual ~Taker() = default;
  virtual void take(std::span<const std::byte> chunk) = 0;
};

// A consumer that reads every cache line; and what it is to come to.
class Tally final : public Taker {
 public:
  std::uint64_t chunks = 0;
  std::uint64_t bytes = 0;
  std::uint64_t sum = 0;

  void add(const Tally& other) {
    chunks += other.chunks;
    bytes += other.bytes;
    sum += other.sum;
  }
  void expect(const FileSet& files, const FileRange& range) {
    bytes += range.end - range.begin;
    sum += files.expected_sum(range.file, range.begin, range.end);
  }
  void take(std::span<const std::byte> chunk) override {
    ++chunks;
    bytes += chunk.size();
    sum += sum_of_lines(chunk);
  }
};

class System {
 public:
  System() = default;
  System(const System&) = delete;
  System& operator=(const System&) = delete;
  virtual ~System() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;
  // Starts reading a range on a stream that is not open: 0 to SystemSetup's number of them.
  [[nodiscard]] virtual Result<void> open(std::size_t stream, const FileRange& range) = 0;
  // Waits for the stream's next chunk, has it taken and gives its memory back. False: the range has been
  // delivered.
  [[nodiscard]] virtual Result<bool> next(std::size_t stream, Taker& taker) = 0;
  virtual void close(std::size_t stream) = 0;
  // All ranges that were opened have been delivered. Returns when they are where they were to go, if they are
  // what was `expected`.
  [[nodiscard]] virtual Result<void> check(const Tally& taken, const Tally& expected) {
    if (taken.bytes == expected.bytes && taken.sum == expected.sum) return {};
    return fail(Code::kDataLoss, std::string(name()) + " delivered wrong bytes");
  }
  // CPU time that processes besides this one have spent for this system since they started.
  [[nodiscard]] virtual Result<std::uint64_t> other_cpu_ns() const { return 0; }
};

// What systems are made of. Paths stay valid as long as the systems.
struct SystemSetup {
  const FileSet& files;
  std::filesystem::path scratch;          // for sockets and logs
  std::filesystem::path daemon;           // nvr-readerd
  std::string device_kind;                // its --device-kind
  std::size_t streams = kUsualStreams;    // how many can be open at a time; a daemon reserves memory for each
  std::uint32_t slots = kSlotsPerStream;  // of a stream; a power of two
  std::vector<std::string> daemon_options = {};  // further ones
};

using MakeSystem = Result<std::unique_ptr<System>> (*)(const SystemSetup&);

// Each is ready to be measured when it is there. The unix socket server is a forked child: it comes before
// any thread.
[[nodiscard]] Result<std::unique_ptr<System>> make_memcpy_system(const SystemSetup& setup);
[[nodiscard]] Result<std::unique_ptr<System>> make_pread_system(const SystemSetup& setup);
[[nodiscard]] Result<std::unique_ptr<System>> make_seed_system(const SystemSetup& setup);
[[nodiscard]] Result<std::unique_ptr<System>> make_thread_pool_system(const SystemSetup& setup);
[[nodiscard]] Result<std::unique_ptr<System>> make_unix_socket_system(const SystemSetup& setup);
[[nodiscard]] Result<std::unique_ptr<System>> make_nvr_mmap_system(const SystemSetup& setup);
[[nodiscard]] Result<std::unique_ptr<System>> make_nvr_io_uring_system(const SystemSetup& setup);

}  // namespace nvr::bench
