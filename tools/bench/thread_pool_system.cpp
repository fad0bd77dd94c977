// "thread_pool": pread on a pool of threads (thread_pool.h) and its consumer. Opening reads the first chunk
// in the same job; the next one is asked for when the consumer is done with a chunk, as tasks of an event
// loop would.
#include <algorithm>
#include <array>

#include "tools/bench/system.h"
#include "tools/bench/thread_pool.h"

namespace nvr::bench {
namespace {

class ThreadPoolSystem final : public System {
 public:
  explicit ThreadPoolSystem(const FileSet& files) : files_(files) {}

  [[nodiscard]] std::string_view name() const override { return "thread_pool"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    streams_[stream] = {.left = range, .asked = false};
    ask(stream, files_.path(range.file));
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Tally& tally) override {
    OpenStream& state = streams_[stream];
    if (!state.asked) return false;
    const auto chunk = pool_.take(stream);
    state.asked = false;
    if (!chunk) return tl::unexpected(chunk.error());
    if (chunk->empty()) return fail(Code::kDataLoss, "the thread pool read nothing");
    tally.take(*chunk);
    state.left.begin += chunk->size();
    ask(stream, {});
    return true;
  }

  void close(std::size_t stream) override {
    if (streams_[stream].asked) static_cast<void>(pool_.take(stream));
    streams_[stream] = {};
    pool_.close(stream);
  }

 private:
  struct OpenStream {
    FileRange left = {};
    bool asked = false;  // a chunk is on its way
  };

  void ask(std::size_t stream, std::string path) {
    OpenStream& state = streams_[stream];
    if (state.left.begin == state.left.end) return;
    pool_.read(stream, std::move(path), state.left.begin,
               std::min<std::uint64_t>(kChunkBytes, state.left.end - state.left.begin));
    state.asked = true;
  }

  const FileSet& files_;
  ThreadPool pool_;
  std::array<OpenStream, kMaxStreams> streams_;
};

}  // namespace

Result<std::unique_ptr<System>> make_thread_pool_system(const SystemSetup& setup) {
  return std::make_unique<ThreadPoolSystem>(setup.files);
}

}  // namespace nvr::bench
