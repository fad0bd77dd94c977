// Another file in a recording's place that cannot be told from it by inode number, size and mtime.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/recording_file.h"

namespace nvr::test {

// Removes the recording's file and creates another of the same name, inode number, size and mtime, with other
// content. Nothing where the file system does not give the inode number again.
[[nodiscard]] inline std::optional<RecordingFile> replace_by_twin(const RecordingFile& file) {
  struct stat before = {};
  if (stat(file.path.c_str(), &before) != 0) throw TestFailure("cannot stat " + file.path);
  std::filesystem::remove(file.path);
  std::vector<std::string> others;  // they keep the inode numbers that came before the right one
  std::optional<RecordingFile> twin;
  for (int i = 0; i < 1000 && !twin; ++i) {
    write_file(file.path, "");
    struct stat after = {};
    if (stat(file.path.c_str(), &after) != 0) throw TestFailure("cannot stat " + file.path);
    if (after.st_ino == before.st_ino) {
      twin =
          make_recording(std::filesystem::path(file.path).parent_path(), file.id, file.size, file.seed + 1);
      const timespec times[2] = {before.st_atim, before.st_mtim};
      if (utimensat(AT_FDCWD, file.path.c_str(), static_cast<const timespec*>(times), 0) != 0)
        throw TestFailure("cannot set the times of " + file.path);
    } else {
      others.push_back(file.path + "-" + std::to_string(i));
      std::filesystem::rename(file.path, others.back());
    }
  }
  for (const std::string& other : others) std::filesystem::remove(other);
  return twin;
}

}  // namespace nvr::test
