// "pread": the simplest reader there is. A consumer's own thread copies 64 KiB at a time from the page cache
// to its one buffer; with several streams it takes from their files in turn.
#include <errno.h>
#include <unistd.h>

#include <algorithm>

#include "shm/unique_fd.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

class PreadSystem final : public System {
 public:
  explicit PreadSystem(const SystemSetup& setup) : files_(setup.files), streams_(setup.streams) {}

  [[nodiscard]] std::string_view name() const override { return "pread"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    auto fd = files_.open(range.file);
    if (!fd) return tl::unexpected(fd.error());
    streams_[stream].fd = std::move(*fd);
    streams_[stream].left = range;
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Taker& taker) override {
    auto& [fd, left] = streams_[stream];
    thread_local std::vector<std::byte> buffer(kChunkBytes);
    if (left.begin == left.end) return false;
    const std::size_t wanted = std::min<std::uint64_t>(kChunkBytes, left.end - left.begin);
    const ssize_t got = pread(fd.get(), buffer.data(), wanted, static_cast<off_t>(left.begin));
    if (got != static_cast<ssize_t>(wanted))
      return fail_errno(got < 0 ? errno : EIO, "cannot read " + files_.path(left.file));
    taker.take(std::span(buffer).first(wanted));
    left.begin += wanted;
    return true;
  }

  void close(std::size_t stream) override { streams_[stream].fd.reset(); }

 private:
  struct OpenFile {
    shm::UniqueFd fd;
    FileRange left;
  };

  const FileSet& files_;
  std::vector<OpenFile> streams_;
};

}  // namespace

Result<std::unique_ptr<System>> make_pread_system(const SystemSetup& setup) {
  return std::make_unique<PreadSystem>(setup);
}

}  // namespace nvr::bench
