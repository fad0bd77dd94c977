// A slow disk of tools/slow-disk for a test: brought up in a directory of its own, and down at the end of the
// test whatever became of it. Test thread only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace nvr::test {

class Laboratory {
 public:
  // Why there can be none on this machine; nothing if there can.
  [[nodiscard]] static std::optional<std::string> missing();

  explicit Laboratory(const std::vector<std::string>& options);
  ~Laboratory();
  Laboratory(const Laboratory&) = delete;
  Laboratory& operator=(const Laboratory&) = delete;

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
  [[nodiscard]] std::vector<std::string> left_behind() const;

 private:
  ProgramResult run(std::vector<std::string> words) const;

  TempDir parent_;
  std::string directory_;
  bool is_up_ = false;
};

// Reads a file from beginning to end in a process of its own: it is allowed to hang. Before it goes, whatever
// holds it up is lifted, so that it can be reaped.
class Reader {
 public:
  Reader(Laboratory& laboratory, const std::string& path);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  [[nodiscard]] bool is_running() { return process_.is_running(); }
  std::optional<Exit> wait() { return process_.wait(); }
  [[nodiscard]] std::string bytes() const { return output_.text(); }
  [[nodiscard]] std::string errors() const { return errors_.text(); }

 private:
  Laboratory& laboratory_;
  Capture output_;
  Capture errors_;
  Process process_;
};

}  // namespace nvr::test
