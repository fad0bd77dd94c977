// A temporary directory, removed with all it holds when its owner goes.
#pragma once

#include <filesystem>
#include <utility>

#include "nvr/error.h"

namespace nvr::bench {

class ScratchDirectory {
 public:
  // Makes PARENT/nvr-bench-XXXXXX.
  [[nodiscard]] static Result<ScratchDirectory> create(const std::filesystem::path& parent);
  ScratchDirectory(ScratchDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchDirectory& operator=(ScratchDirectory&&) = delete;
  ~ScratchDirectory();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  explicit ScratchDirectory(std::filesystem::path path) : path_(std::move(path)) {}

  std::filesystem::path path_;
};

}  // namespace nvr::bench
