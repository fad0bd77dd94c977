// "pread": the simplest reader there is. A consumer's own thread copies 64 KiB at a time from the page cache
// to its one buffer; with several streams it takes from their files in turn.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "shm/unique_fd.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

class PreadSystem final : public System {
 public:
  explicit PreadSystem(const FileSet& files) : files_(files) {}

  [[nodiscard]] std::string_view name() const override { return "pread"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    const std::string path = files_.path(range.file);
    streams_[stream].fd = shm::UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!streams_[stream].fd) return fail_errno(errno, "cannot open " + path);
    streams_[stream].range = range;
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Tally& tally) override {
    auto& [fd, range] = streams_[stream];
    thread_local std::vector<std::byte> buffer(kChunkBytes);
    if (range.begin == range.end) return false;
    const std::size_t wanted = std::min<std::uint64_t>(kChunkBytes, range.end - range.begin);
    const ssize_t got = pread(fd.get(), buffer.data(), wanted, static_cast<off_t>(range.begin));
    if (got != static_cast<ssize_t>(wanted))
      return fail_errno(got < 0 ? errno : EIO, "cannot read " + files_.path(range.file));
    tally.take(std::span(buffer).first(wanted));
    range.begin += wanted;
    return true;
  }

  void close(std::size_t stream) override { streams_[stream].fd.reset(); }

 private:
  struct OpenFile {
    shm::UniqueFd fd;
    FileRange range;  // what is left
  };

  const FileSet& files_;
  std::array<OpenFile, kMaxStreams> streams_;
};

}  // namespace

Result<std::unique_ptr<System>> make_pread_system(const SystemSetup& setup) {
  return std::make_unique<PreadSystem>(setup.files);
}

}  // namespace nvr::bench
