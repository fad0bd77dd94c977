// The in-process design that the daemon replaces: a dedicated reader thread for the disk, which maps the
// range of each open file with MADV_SEQUENTIAL and, asked for a stream's next chunk, copies it to a fresh
// buffer of its own. At most one chunk of a stream is asked for and not taken, so a chunk costs two
// hand-offs: the request to the reader thread, the reply to the consumer. Both are a queue behind a mutex and
// a condition variable.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "tools/bench/system.h"

namespace nvr::bench {

// What the reader thread answers: a chunk in memory that the receiver owns, or an errno.
struct SeedChunk {
  std::unique_ptr<std::byte[]> memory = {};
  std::size_t length = 0;
  int sys_errno = 0;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {memory.get(), length}; }
};

struct SeedRequest {
  enum class Kind { kOpenAndRead, kRead, kClose, kStop };
  Kind kind = Kind::kStop;
  std::size_t stream = 0;
  std::string path = {};     // kOpenAndRead
  std::uint64_t offset = 0;  // kOpenAndRead: where the range begins; a multiple of the page size
  std::uint64_t length = 0;  // kOpenAndRead: of the range
};

class SeedReader {
 public:
  SeedReader() = default;
  SeedReader(const SeedReader&) = delete;
  SeedReader& operator=(const SeedReader&) = delete;
  ~SeedReader();

  // From any thread. The first request starts the reader thread.
  void request(SeedRequest request);
  // Waits for the answer to the stream's oldest kOpenAndRead or kRead.
  [[nodiscard]] SeedChunk take(std::size_t stream);

 private:
  // Where an answer lies until its stream takes it.
  struct Answer {
    std::mutex mutex;
    std::condition_variable arrived;
    std::optional<SeedChunk> chunk;
  };
  // A range that is mapped. Reader thread only.
  struct MappedRange {
    std::byte* data = nullptr;
    std::uint64_t length = 0;
    std::uint64_t done = 0;
  };

  void run();
  [[nodiscard]] SeedRequest wait_for_request();
  [[nodiscard]] int map(const SeedRequest& request);
  void unmap(std::size_t stream);
  [[nodiscard]] SeedChunk read_next(std::size_t stream);
  void answer(std::size_t stream, SeedChunk chunk);

  std::mutex mutex_;
  std::condition_variable requested_;
  std::deque<SeedRequest> requests_;
  std::array<Answer, kMaxStreams> answers_;
  std::array<MappedRange, kMaxStreams> ranges_;
  std::once_flag started_;
  std::thread thread_;
};

}  // namespace nvr::bench
