// A temporary directory, removed with all it holds when its owner goes.
#pragma once

#include <filesystem>
#include <memory>

#include "tools/bench/child_process.h"
#include "tools/lab/temp_dir.h"

namespace nvr::bench {

class ScratchDirectory {
 public:
  [[nodiscard]] static Result<ScratchDirectory> create(const std::filesystem::path& parent) {
    return attempt([&] { return ScratchDirectory(std::make_unique<lab::TempDir>(parent)); });
  }
  [[nodiscard]] std::filesystem::path path() const { return directory_->path(); }

 private:
  explicit ScratchDirectory(std::unique_ptr<lab::TempDir> directory) : directory_(std::move(directory)) {}

  std::unique_ptr<lab::TempDir> directory_;
};

}  // namespace nvr::bench
