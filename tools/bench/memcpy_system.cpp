// "memcpy": the floor. No disk, no isolation, no hand-over: the consumer's own thread copies from maps of the
// recordings that stay, every page of them in place, to a window as a stream of nvr-readerd has one, slot by
// slot, and reads each line.
#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "shm/mapping.h"
#include "shm/unique_fd.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

class MemcpySystem final : public System {
 public:
  MemcpySystem(std::vector<shm::Mapping> maps, std::size_t slots) : maps_(std::move(maps)), slots_(slots) {}

  [[nodiscard]] std::string_view name() const override { return "memcpy"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    OpenStream& state = streams_[stream];
    state.range = range;
    if (state.window.empty()) state.window.resize(slots_ * kChunkBytes);
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Tally& tally) override {
    auto& [window, slot, range] = streams_[stream];
    if (range.begin == range.end) return false;
    const std::size_t bytes = std::min<std::uint64_t>(kChunkBytes, range.end - range.begin);
    std::byte* const to = window.data() + slot * kChunkBytes;
    std::memcpy(to, maps_[range.file].data() + range.begin, bytes);
    tally.take({to, bytes});
    range.begin += bytes;
    slot = (slot + 1) % slots_;
    return true;
  }

  void close(std::size_t) override {}

 private:
  struct OpenStream {
    std::vector<std::byte> window = {};
    std::size_t slot = 0;
    FileRange range = {};  // what is left
  };

  std::vector<shm::Mapping> maps_;
  std::size_t slots_;  // of a stream's window
  std::array<OpenStream, kMaxStreams> streams_;
};

}  // namespace

Result<std::unique_ptr<System>> make_memcpy_system(const SystemSetup& setup) {
  std::vector<shm::Mapping> maps;
  for (std::size_t file = 0; file < setup.files.count(); ++file) {
    const std::string path = setup.files.path(file);
    const shm::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return fail_errno(errno, "cannot open " + path);
    auto map =
        shm::Mapping::create(fd.get(), 0, setup.files.file_bytes(), shm::Access::kReadOnly, path.c_str());
    if (!map) return tl::unexpected(map.error());
    static_cast<void>(sum_of_lines({map->data(), setup.files.file_bytes()}));
    maps.push_back(std::move(*map));
  }
  return std::make_unique<MemcpySystem>(std::move(maps), setup.slots);
}

}  // namespace nvr::bench
