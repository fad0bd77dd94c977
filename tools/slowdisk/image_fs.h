// An image file served as a disk: a FUSE file system whose one file, "disk", is the image, for a loop device
// on top. Nothing is cached above the model (direct I/O), so every read comes here.
//
// Threads: the operations run in the session's thread; the answers come from the head's.
#pragma once

#include <cstdint>
#include <string>

#include "shm/unique_fd.h"
#include "tools/slowdisk/fuse_session.h"
#include "tools/slowdisk/head.h"

namespace nvr::slowdisk {

class ImageFs {
 public:
  static Result<ImageFs> open(const std::string& path);
  [[nodiscard]] std::uint64_t size_bytes() const { return size_bytes_; }

  // Both must outlive the session; the head must outlive nothing but its own users.
  void attach(Head& head) { head_ = &head; }
  [[nodiscard]] static fuse_lowlevel_ops operations();

 private:
  ImageFs(shm::UniqueFd fd, std::uint64_t size_bytes) : fd_(std::move(fd)), size_bytes_(size_bytes) {}
  struct Operations;

  shm::UniqueFd fd_;
  std::uint64_t size_bytes_;
  Head* head_ = nullptr;
};

}  // namespace nvr::slowdisk
