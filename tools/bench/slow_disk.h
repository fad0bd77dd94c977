// A modelled spinning disk with ext4 on it, put up by tools/slow-disk and taken down when its owner goes.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "nvr/error.h"

namespace nvr::bench {

class SlowDisk {
 public:
  // Root only. `script` is tools/slow-disk; `directory` does not exist yet; what the script says goes to
  // `log`.
  [[nodiscard]] static Result<SlowDisk> up(const std::filesystem::path& script,
                                           const std::filesystem::path& directory,
                                           const std::filesystem::path& log,
                                           const std::vector<std::string>& model);
  SlowDisk(SlowDisk&& other) noexcept
      : script_(std::exchange(other.script_, {})),
        directory_(std::move(other.directory_)),
        log_(std::move(other.log_)),
        read_ahead_before_(std::move(other.read_ahead_before_)) {}
  SlowDisk& operator=(SlowDisk&&) = delete;
  ~SlowDisk();

  // Where its file system is mounted.
  [[nodiscard]] std::filesystem::path mounted_at() const { return directory_ / "disk"; }
  // The kernel's read-ahead: disks have 128, but a loop device may come with twenty times as much.
  [[nodiscard]] Result<void> set_read_ahead(unsigned kib);
  // Nothing of it is cached afterwards.
  [[nodiscard]] Result<void> forget() const;

 private:
  SlowDisk(std::filesystem::path script, std::filesystem::path directory, std::filesystem::path log)
      : script_(std::move(script)), directory_(std::move(directory)), log_(std::move(log)) {}

  std::filesystem::path script_;  // empty: nothing to take down
  std::filesystem::path directory_;
  std::filesystem::path log_;
  std::string read_ahead_before_;  // of the loop device, which outlives this: what to leave it with
};

}  // namespace nvr::bench
