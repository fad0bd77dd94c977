// "memcpy": the floor. No disk, no isolation, no hand-over: the consumer's own thread copies from maps of the
// recordings that stay, every page of them in place, to a window as a stream of nvr-readerd has one, slot by
// slot, and reads each line.
#include <algorithm>
#include <cstring>

#include "shm/mapping.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

class MemcpySystem final : public System {
 public:
  MemcpySystem(std::vector<shm::Mapping> maps, const SystemSetup& setup)
      : maps_(std::move(maps)), slots_(setup.slots), streams_(setup.streams) {}

  [[nodiscard]] std::string_view name() const override { return "memcpy"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    OpenStream& state = streams_[stream];
    state.left = range;
    if (state.window.empty()) state.window.resize(slots_ * kChunkBytes);
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Taker& taker) override {
    auto& [window, slot, left] = streams_[stream];
    if (left.begin == left.end) return false;
    const std::size_t bytes = std::min<std::uint64_t>(kChunkBytes, left.end - left.begin);
    std::byte* const to = window.data() + slot * kChunkBytes;
    std::memcpy(to, maps_[left.file].data() + left.begin, bytes);
    taker.take({to, bytes});
    left.begin += bytes;
    slot = (slot + 1) % slots_;
    return true;
  }

  void close(std::size_t) override {}

 private:
  struct OpenStream {
    std::vector<std::byte> window = {};
    std::size_t slot = 0;
    FileRange left = {};
  };

  std::vector<shm::Mapping> maps_;
  std::size_t slots_;  // of a stream's window
  std::vector<OpenStream> streams_;
};

}  // namespace

Result<std::unique_ptr<System>> make_memcpy_system(const SystemSetup& setup) {
  std::vector<shm::Mapping> maps;
  for (std::size_t file = 0; file < setup.files.count(); ++file) {
    const auto fd = setup.files.open(file);
    if (!fd) return tl::unexpected(fd.error());
    const std::uint64_t bytes = setup.files.file_bytes();
    auto map =
        shm::Mapping::create(fd->get(), 0, bytes, shm::Access::kReadOnly, setup.files.path(file).c_str());
    if (!map) return tl::unexpected(map.error());
    static_cast<void>(sum_of_lines({map->data(), bytes}));
    maps.push_back(std::move(*map));
  }
  return std::make_unique<MemcpySystem>(std::move(maps), setup);
}

}  // namespace nvr::bench
