// "nvr_mmap" and "nvr_io_uring": this project. A real nvr-readerd with the given engine, and its client
// library in the consumer: one connection of as many streams and slots as SystemSetup says.
#pragma once

#include <optional>
#include <string>

#include "nvr/client.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/system.h"

namespace nvr::bench {

// `engine`: "mmap" or "io_uring". One daemon of each engine at a time.
[[nodiscard]] Result<DaemonProcess> start_nvr_daemon(const SystemSetup& setup, const std::string& engine);

class NvrSystem final : public System {
 public:
  // Starts a daemon of its own.
  [[nodiscard]] static Result<std::unique_ptr<NvrSystem>> start(const SystemSetup& setup,
                                                                const std::string& engine);
  // A client of a daemon that belongs to others.
  [[nodiscard]] static Result<std::unique_ptr<NvrSystem>> connect(const SystemSetup& setup,
                                                                  const std::string& engine);

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override;
  [[nodiscard]] Result<bool> next(std::size_t stream, Taker& taker) override;
  void close(std::size_t stream) override { streams_[stream].reset(); }
  [[nodiscard]] Result<std::uint64_t> other_cpu_ns() const override;

  [[nodiscard]] Client& client() { return client_; }

 private:
  NvrSystem(const SystemSetup& setup, const std::string& engine, Client client)
      : name_("nvr_" + engine), files_(setup.files), client_(std::move(client)), streams_(setup.streams) {}

  std::string name_;
  const FileSet& files_;
  std::optional<DaemonProcess> daemon_ = {};
  Client client_;
  std::vector<std::optional<Stream>> streams_;
};

}  // namespace nvr::bench
