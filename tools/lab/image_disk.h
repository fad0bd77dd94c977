// A modelled disk of tools/slow-disk: a real block device with ext4, brought up in a directory of its own,
// and taken down by the destructor whatever became of it. Test thread only.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "tools/lab/process.h"
#include "tools/lab/programs.h"
#include "tools/lab/temp_dir.h"

namespace nvr::lab {

struct ImageDiskTools {
  std::string script = source_directory() + "/tools/slow-disk";
  std::string server = path_of_slowdisk();  // empty: the script looks for it
  std::string parent = {};                  // of its directory; empty: TMPDIR or /tmp
};

class ImageDisk {
 public:
  // Why there can be none on this machine, with the programs of this build; nothing if there can.
  [[nodiscard]] static std::optional<std::string> missing();

  // `options`: of `tools/slow-disk up`.
  explicit ImageDisk(const std::vector<std::string>& options, ImageDiskTools tools = {});
  ~ImageDisk();
  ImageDisk(const ImageDisk&) = delete;
  ImageDisk& operator=(const ImageDisk&) = delete;

  [[nodiscard]] std::string operator/(const std::string& name) const { return directory_ + "/disk/" + name; }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  // Of nvr-slowdisk.
  [[nodiscard]] pid_t pid() const;

  // What it said. Throws when it is refused.
  std::string order(const std::string& line);
  // Nothing of it is cached any more.
  void cool();
  // `tools/slow-disk down`: how it ended.
  ProgramResult take_down();
  // Mounts and loop devices that there still are.
  [[nodiscard]] std::vector<std::string> left_behind() const { return left_behind(directory_); }
  [[nodiscard]] static std::vector<std::string> left_behind(const std::string& directory);

 private:
  [[nodiscard]] ProgramResult run(std::vector<std::string> words) const;

  ImageDiskTools tools_;
  TempDir parent_;
  std::string directory_;
  bool is_up_ = false;
};

}  // namespace nvr::lab
