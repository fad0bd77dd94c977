#include "tools/bench/hot_files.h"

namespace nvr::bench {

Result<HotFiles> HotFiles::create(const BenchOptions& options) {
  auto scratch = ScratchDirectory::create(options.directory);
  if (!scratch) return tl::unexpected(scratch.error());
  const std::filesystem::path recordings = scratch->path() / "recordings";
  std::error_code error;
  if (!std::filesystem::create_directory(recordings, error))
    return fail_errno(error.value(), "cannot make " + recordings.string());
  auto files = FileSet::create(recordings, options.files);
  if (!files) return tl::unexpected(files.error());
  return HotFiles(std::move(*scratch), std::move(*files));
}

}  // namespace nvr::bench
