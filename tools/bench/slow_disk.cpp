#include "tools/bench/slow_disk.h"

#include <errno.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fstream>

#include "tools/bench/child_process.h"
#include "tools/bench/text_files.h"

namespace nvr::bench {
namespace {

// Empty: cannot be looked at.
std::string read_ahead_path(const std::filesystem::path& mounted_at) {
  struct stat status = {};
  if (stat(mounted_at.c_str(), &status) != 0) return {};
  return fmt::format("/sys/dev/block/{}:{}/queue/read_ahead_kb", major(status.st_dev), minor(status.st_dev));
}

}  // namespace

Result<SlowDisk> SlowDisk::up(const std::filesystem::path& script, const std::filesystem::path& parent,
                              const std::vector<std::string>& model) {
  if (geteuid() != 0) return fail(Code::kPermissionDenied, "a modelled disk needs root");
  if (access(script.c_str(), X_OK) != 0)
    return fail_errno(errno, fmt::format("cannot run {} (--slow-disk names it)", script.string()));
  return attempt([&] {
    return SlowDisk(std::make_unique<lab::ImageDisk>(
        model, lab::ImageDiskTools{.script = script, .server = {}, .parent = parent}));
  });
}

SlowDisk::~SlowDisk() {
  if (disk_ && !read_ahead_before_.empty())
    std::ofstream(read_ahead_path(mounted_at())) << read_ahead_before_;
}

Result<void> SlowDisk::set_read_ahead(unsigned kib) {
  const std::string path = read_ahead_path(mounted_at());
  if (read_ahead_before_.empty()) read_ahead_before_ = text_of(path);
  return write_text(std::to_string(kib), path);
}

Result<void> SlowDisk::forget() const {
  const auto done = attempt([&] { return disk_->cool(), true; });
  return done ? Result<void>() : tl::unexpected(done.error());
}

}  // namespace nvr::bench
