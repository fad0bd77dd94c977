// "bare": what the streams of the least daemon there can be (bare_daemon.h) deliver.
#include "tools/bench/bare_daemon.h"
#include "tools/bench/cpu_time.h"

namespace nvr::bench {
namespace {

class BareSystem final : public System {
 public:
  BareSystem(std::shared_ptr<BareDaemon> daemon, std::size_t first_stream)
      : daemon_(std::move(daemon)), first_(first_stream) {}

  [[nodiscard]] std::string_view name() const override { return "bare"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    daemon_->open(first_ + stream, range);
    return {};
  }
  [[nodiscard]] Result<bool> next(std::size_t stream, Tally& tally) override {
    const auto chunk = daemon_->next(first_ + stream);
    if (!chunk) return tl::unexpected(chunk.error());
    if (!*chunk) return false;
    tally.take(**chunk);
    daemon_->release(first_ + stream);
    return true;
  }
  void close(std::size_t stream) override { daemon_->close(first_ + stream); }
  [[nodiscard]] Result<std::uint64_t> other_cpu_ns() const override { return cpu_ns_of(daemon_->pid()); }

 private:
  std::shared_ptr<BareDaemon> daemon_;
  std::size_t first_;
};

Result<std::unique_ptr<System>> make_system(const SystemSetup& setup, BareSource source) {
  auto daemon = BareDaemon::start(setup.files, setup.streams, setup.slots, source);
  if (!daemon) return tl::unexpected(daemon.error());
  return make_bare_client_system(std::make_shared<BareDaemon>(std::move(*daemon)), setup.streams);
}

}  // namespace

std::unique_ptr<System> make_bare_client_system(std::shared_ptr<BareDaemon> daemon, std::size_t streams) {
  const std::size_t first = daemon->take_streams(streams);
  return std::make_unique<BareSystem>(std::move(daemon), first);
}
Result<std::unique_ptr<System>> make_bare_system(const SystemSetup& setup) {
  return make_system(setup, BareSource::kMaps);
}
Result<std::unique_ptr<System>> make_bare_reading_system(const SystemSetup& setup) {
  return make_system(setup, BareSource::kReads);
}

}  // namespace nvr::bench
