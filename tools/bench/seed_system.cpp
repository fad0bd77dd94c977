// "seed": the in-process reader thread (seed_reader.h) and its consumer. Opening reads the first chunk at
// once; the next one is asked for when the consumer is done with a chunk, before it turns to another stream,
// as tasks of an event loop would. So with several streams the reader thread works while the consumer does.
#include <array>

#include "tools/bench/seed_reader.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

class SeedSystem final : public System {
 public:
  explicit SeedSystem(const FileSet& files) : files_(files) {}

  [[nodiscard]] std::string_view name() const override { return "seed"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    streams_[stream] = {.left = range.end - range.begin, .asked = true};
    reader_.request({.kind = SeedRequest::Kind::kOpenAndRead,
                     .stream = stream,
                     .path = files_.path(range.file),
                     .offset = range.begin,
                     .length = range.end - range.begin});
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Tally& tally) override {
    OpenStream& state = streams_[stream];
    if (!state.asked) return false;
    const SeedChunk chunk = reader_.take(stream);
    state.asked = false;
    if (chunk.sys_errno != 0) return fail_errno(chunk.sys_errno, "the seed's reader thread cannot read");
    tally.take(chunk.bytes());
    state.left -= chunk.length;
    if (state.left > 0) {
      reader_.request({.kind = SeedRequest::Kind::kRead, .stream = stream});
      state.asked = true;
    }
    return true;
  }

  void close(std::size_t stream) override {
    if (streams_[stream].asked) static_cast<void>(reader_.take(stream));
    streams_[stream] = {};
    reader_.request({.kind = SeedRequest::Kind::kClose, .stream = stream});
  }

 private:
  struct OpenStream {
    std::uint64_t left = 0;  // bytes that have not been taken
    bool asked = false;      // a chunk is on its way
  };

  const FileSet& files_;
  SeedReader reader_;
  std::array<OpenStream, kMaxStreams> streams_;
};

}  // namespace

Result<std::unique_ptr<System>> make_seed_system(const SystemSetup& setup) {
  return std::make_unique<SeedSystem>(setup.files);
}

}  // namespace nvr::bench
