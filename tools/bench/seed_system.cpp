// "seed": the in-process design that the daemon replaces. A dedicated reader thread for the disk maps the
// range of each open file with MADV_SEQUENTIAL and, asked for a stream's next chunk, copies it to a fresh
// buffer of its own. At most one chunk of a stream is asked for and not taken, so a chunk costs two
// hand-offs: the request to the reader thread, the reply to the consumer. Both are a queue behind a mutex and
// a condition variable.
//
// Opening reads the first chunk at once; the next one is asked for when the consumer is done with a chunk,
// before it turns to another stream, as tasks of an event loop would. So with several streams the reader
// thread works while the consumer does.
#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "shm/unique_fd.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

// What the reader thread answers: a chunk in memory that the receiver owns, or an error.
struct Chunk {
  std::unique_ptr<std::byte[]> memory = {};
  std::size_t length = 0;
  Result<void> outcome = {};
};

class Reader {
 public:
  Reader(const FileSet& files, std::size_t streams) : files_(files), answers_(streams), ranges_(streams) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() {
    if (!thread_.joinable()) return;
    request({.kind = Request::Kind::kStop});
    thread_.join();
  }

  struct Request {
    enum class Kind { kOpenAndRead, kRead, kClose, kStop };
    Kind kind = Kind::kStop;
    std::size_t stream = 0;
    FileRange range = {};  // kOpenAndRead
  };
  // From any thread. The first request starts the reader thread.
  void request(Request request) {
    std::call_once(started_, [this] { thread_ = std::thread(&Reader::run, this); });
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    requested_.notify_one();
  }
  // Waits for the answer to the stream's oldest kOpenAndRead or kRead.
  [[nodiscard]] Chunk take(std::size_t stream) {
    Answer& answer = answers_[stream];
    std::unique_lock lock(answer.mutex);
    answer.arrived.wait(lock, [&] { return answer.chunk.has_value(); });
    Chunk chunk = std::move(*answer.chunk);
    answer.chunk.reset();
    return chunk;
  }

 private:
  // Where an answer lies until its stream takes it.
  struct Answer {
    std::mutex mutex;
    std::condition_variable arrived;
    std::optional<Chunk> chunk;
  };
  // A range that is mapped. Reader thread only.
  struct MappedRange {
    std::byte* data = nullptr;
    std::uint64_t length = 0;
    std::uint64_t done = 0;
  };

  void run() {
    for (;;) {
      const Request request = wait_for_request();
      switch (request.kind) {
        case Request::Kind::kOpenAndRead:
          if (auto mapped = map(request); !mapped)
            answer(request.stream, {.outcome = mapped});
          else
            answer(request.stream, read_next(request.stream));
          break;
        case Request::Kind::kRead:
          answer(request.stream, read_next(request.stream));
          break;
        case Request::Kind::kClose:
          unmap(ranges_[request.stream]);
          break;
        case Request::Kind::kStop:
          std::ranges::for_each(ranges_, unmap);
          return;
      }
    }
  }

  [[nodiscard]] Request wait_for_request() {
    std::unique_lock lock(mutex_);
    requested_.wait(lock, [&] { return !requests_.empty(); });
    const Request request = requests_.front();
    requests_.pop_front();
    return request;
  }

  [[nodiscard]] Result<void> map(const Request& request) {
    const auto fd = files_.open(request.range.file);
    if (!fd) return tl::unexpected(fd.error());
    const std::size_t length = request.range.end - request.range.begin;
    void* const data =
        mmap(nullptr, length, PROT_READ, MAP_SHARED, fd->get(), static_cast<off_t>(request.range.begin));
    if (data == MAP_FAILED) return fail_errno(errno, "the seed cannot map a recording");
    madvise(data, length, MADV_SEQUENTIAL);
    ranges_[request.stream] = {.data = static_cast<std::byte*>(data), .length = length};
    return {};
  }

  static void unmap(MappedRange& range) {
    if (range.data != nullptr) munmap(range.data, range.length);
    range = {};
  }

  [[nodiscard]] Chunk read_next(std::size_t stream) {
    MappedRange& range = ranges_[stream];
    Chunk chunk;
    chunk.length = std::min<std::uint64_t>(kChunkBytes, range.length - range.done);
    chunk.memory = std::make_unique_for_overwrite<std::byte[]>(chunk.length);
    std::memcpy(chunk.memory.get(), range.data + range.done, chunk.length);
    range.done += chunk.length;
    return chunk;
  }

  void answer(std::size_t stream, Chunk chunk) {
    Answer& answer = answers_[stream];
    {
      const std::lock_guard lock(answer.mutex);
      answer.chunk = std::move(chunk);
    }
    answer.arrived.notify_one();
  }

  const FileSet& files_;
  std::mutex mutex_;
  std::condition_variable requested_;
  std::deque<Request> requests_;
  std::vector<Answer> answers_;
  std::vector<MappedRange> ranges_;
  std::once_flag started_;
  std::thread thread_;
};

class SeedSystem final : public System {
 public:
  explicit SeedSystem(const SystemSetup& setup)
      : reader_(setup.files, setup.streams), streams_(setup.streams) {}

  [[nodiscard]] std::string_view name() const override { return "seed"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    streams_[stream] = {.left = range.end - range.begin, .asked = true};
    reader_.request({.kind = Reader::Request::Kind::kOpenAndRead, .stream = stream, .range = range});
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Taker& taker) override {
    OpenStream& state = streams_[stream];
    if (!state.asked) return false;
    const Chunk chunk = reader_.take(stream);
    state.asked = false;
    if (!chunk.outcome) return tl::unexpected(chunk.outcome.error());
    taker.take({chunk.memory.get(), chunk.length});
    state.left -= chunk.length;
    if (state.left > 0) {
      reader_.request({.kind = Reader::Request::Kind::kRead, .stream = stream});
      state.asked = true;
    }
    return true;
  }

  void close(std::size_t stream) override {
    if (streams_[stream].asked) static_cast<void>(reader_.take(stream));
    streams_[stream] = {};
    reader_.request({.kind = Reader::Request::Kind::kClose, .stream = stream});
  }

 private:
  struct OpenStream {
    std::uint64_t left = 0;  // bytes that have not been taken
    bool asked = false;      // a chunk is on its way
  };

  Reader reader_;
  std::vector<OpenStream> streams_;
};

}  // namespace

Result<std::unique_ptr<System>> make_seed_system(const SystemSetup& setup) {
  return std::make_unique<SeedSystem>(setup);
}

}  // namespace nvr::bench
