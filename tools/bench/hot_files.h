// Recordings in the page cache, in a directory of their own that goes with them: what most scenarios read.
#pragma once

#include "tools/bench/scenario.h"
#include "tools/bench/scratch.h"
#include "tools/bench/system.h"

namespace nvr::bench {

class HotFiles {
 public:
  // Of `options.files`, in `options.directory`.
  [[nodiscard]] static Result<HotFiles> create(const BenchOptions& options);

  [[nodiscard]] const FileSet& files() const { return files_; }
  // For systems on these files.
  [[nodiscard]] SystemSetup setup(const BenchOptions& options) const {
    return {.files = files_,
            .scratch = scratch_.path(),
            .daemon = options.daemon,
            .device_kind = options.device_kind};
  }

 private:
  HotFiles(ScratchDirectory scratch, FileSet files)
      : scratch_(std::move(scratch)), files_(std::move(files)) {}

  ScratchDirectory scratch_;
  FileSet files_;
};

}  // namespace nvr::bench
