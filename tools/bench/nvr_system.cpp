#include "tools/bench/nvr_system.h"

#include <fmt/format.h>

#include "tools/bench/cpu_time.h"

namespace nvr::bench {
namespace {

std::filesystem::path socket_of(const SystemSetup& setup, const std::string& engine) {
  return setup.scratch / ("nvr_" + engine + ".sock");
}

}  // namespace

Result<DaemonProcess> start_nvr_daemon(const SystemSetup& setup, const std::string& engine) {
  const std::size_t window_bytes = setup.streams * setup.slots * kChunkBytes;
  std::vector<std::string> more = setup.daemon_options;
  if (setup.streams > kUsualStreams)
    more.insert(more.end(), {"--client-memory", fmt::format("{}MiB", 2 * window_bytes >> 20)});
  return DaemonProcess::start({.program = setup.daemon,
                               .directory = setup.files.directory(),
                               .socket = socket_of(setup, engine),
                               .engine = engine,
                               .device_kind = setup.device_kind,
                               .more = std::move(more)});
}

Result<std::unique_ptr<NvrSystem>> NvrSystem::start(const SystemSetup& setup, const std::string& engine) {
  auto daemon = start_nvr_daemon(setup, engine);
  if (!daemon) return tl::unexpected(daemon.error());
  auto system = connect(setup, engine);
  if (system) (*system)->daemon_ = std::move(*daemon);
  return system;
}

Result<std::unique_ptr<NvrSystem>> NvrSystem::connect(const SystemSetup& setup, const std::string& engine) {
  auto client = Client::connect(
      socket_of(setup, engine).string(),
      {.streams = static_cast<std::uint32_t>(setup.streams), .slots_per_stream = setup.slots});
  if (!client) return tl::unexpected(client.error());
  return std::unique_ptr<NvrSystem>(new NvrSystem(setup, engine, std::move(*client)));
}

Result<void> NvrSystem::open(std::size_t stream, const FileRange& range) {
  auto opened = client_.open({.recording = files_.id(range.file),
                              .begin = range.begin,
                              .end = range.end,
                              .priority = range.priority});
  if (!opened) return tl::unexpected(opened.error());
  streams_[stream].emplace(std::move(*opened));
  return {};
}

Result<bool> NvrSystem::next(std::size_t stream, Taker& taker) {
  const auto chunk = streams_[stream]->next();
  if (!chunk) return false;
  if (!*chunk) return tl::unexpected(chunk->error());
  taker.take((*chunk)->bytes());
  return true;
}

Result<std::uint64_t> NvrSystem::other_cpu_ns() const {
  if (!daemon_) return 0;
  return cpu_ns_of(daemon_->pid());
}

Result<std::unique_ptr<System>> make_nvr_mmap_system(const SystemSetup& setup) {
  return NvrSystem::start(setup, "mmap");
}
Result<std::unique_ptr<System>> make_nvr_io_uring_system(const SystemSetup& setup) {
  return NvrSystem::start(setup, "io_uring");
}

}  // namespace nvr::bench
