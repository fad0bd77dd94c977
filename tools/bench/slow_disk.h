// A modelled spinning disk with ext4 on it, put up by tools/slow-disk and taken down when its owner goes.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "nvr/error.h"
#include "tools/lab/image_disk.h"

namespace nvr::bench {

class SlowDisk {
 public:
  // Root only. `script` is tools/slow-disk; the image lies beneath `parent`.
  [[nodiscard]] static Result<SlowDisk> up(const std::filesystem::path& script,
                                           const std::filesystem::path& parent,
                                           const std::vector<std::string>& model);
  SlowDisk(SlowDisk&&) noexcept = default;
  SlowDisk& operator=(SlowDisk&&) = delete;
  ~SlowDisk();

  // Where its file system is mounted.
  [[nodiscard]] std::filesystem::path mounted_at() const { return disk_->directory() + "/disk"; }
  // The kernel's read-ahead: disks have 128, but a loop device may come with twenty times as much.
  [[nodiscard]] Result<void> set_read_ahead(unsigned kib);
  // Nothing of it is cached afterwards.
  [[nodiscard]] Result<void> forget() const;

 private:
  explicit SlowDisk(std::unique_ptr<lab::ImageDisk> disk) : disk_(std::move(disk)) {}

  std::unique_ptr<lab::ImageDisk> disk_;
  std::string read_ahead_before_;  // of the loop device, which outlives this: what to leave it with
};

}  // namespace nvr::bench
