// "nvr_mmap" and "nvr_io_uring": this project. A real nvr-readerd with the given engine, and its client
// library in the consumer: one connection of 32 slots for each stream.
#include "tools/bench/nvr_system.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "nvr/client.h"
#include "tools/bench/cpu_time.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

class NvrSystem final : public System {
 public:
  NvrSystem(std::string name, const FileSet& files, std::optional<DaemonProcess> daemon, Client client)
      : name_(std::move(name)), files_(files), daemon_(std::move(daemon)), client_(std::move(client)) {}

  [[nodiscard]] std::string_view name() const override { return name_; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    auto opened = client_.open({.recording = files_.id(range.file),
                                .begin = range.begin,
                                .end = range.end,
                                .priority = range.priority});
    if (!opened) return tl::unexpected(opened.error());
    streams_[stream].emplace(std::move(*opened));
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Tally& tally) override {
    const auto chunk = streams_[stream]->next();
    if (!chunk) return false;
    if (!*chunk) return tl::unexpected(chunk->error());
    tally.take((*chunk)->bytes());
    return true;
  }

  void close(std::size_t stream) override { streams_[stream].reset(); }

  [[nodiscard]] Result<std::uint64_t> other_cpu_ns() const override {
    if (!daemon_) return 0;
    return cpu_ns_of(daemon_->pid());
  }

 private:
  std::string name_;
  const FileSet& files_;
  std::optional<DaemonProcess> daemon_;  // none: it belongs to others
  Client client_;
  std::array<std::optional<Stream>, kMaxStreams> streams_;
};

std::filesystem::path socket_of(const SystemSetup& setup, const std::string& engine) {
  return setup.scratch / ("nvr_" + engine + setup.daemon_name + ".sock");
}

Result<std::unique_ptr<System>> make_nvr_system(const SystemSetup& setup, const std::string& engine) {
  auto daemon = start_nvr_daemon(setup, engine);
  if (!daemon) return tl::unexpected(daemon.error());
  auto client = connect_nvr_client(setup, engine);
  if (!client) return tl::unexpected(client.error());
  return std::make_unique<NvrSystem>("nvr_" + engine, setup.files, std::move(*daemon), std::move(*client));
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

Result<Client> connect_nvr_client(const SystemSetup& setup, const std::string& engine) {
  return Client::connect(
      socket_of(setup, engine).string(),
      {.streams = static_cast<std::uint32_t>(setup.streams), .slots_per_stream = setup.slots});
}

Result<std::unique_ptr<System>> make_nvr_client_system(const SystemSetup& setup, const std::string& engine) {
  auto client = connect_nvr_client(setup, engine);
  if (!client) return tl::unexpected(client.error());
  return std::make_unique<NvrSystem>("nvr_" + engine, setup.files, std::nullopt, std::move(*client));
}

Result<std::unique_ptr<System>> make_nvr_mmap_system(const SystemSetup& setup) {
  return make_nvr_system(setup, "mmap");
}
Result<std::unique_ptr<System>> make_nvr_io_uring_system(const SystemSetup& setup) {
  return make_nvr_system(setup, "io_uring");
}

}  // namespace nvr::bench
