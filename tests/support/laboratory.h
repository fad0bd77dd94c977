// A slow disk of tools/slow-disk for a test, and a reader that may hang on it.
#pragma once

#include <optional>
#include <string>

#include "tests/support/environment.h"
#include "tools/lab/image_disk.h"

namespace nvr::test {

using Laboratory = lab::ImageDisk;

// Reads a file from beginning to end in a process of its own: it is allowed to hang. The destructor lifts
// whatever holds it up, so that it can be reaped.
class Reader {
 public:
  Reader(Laboratory& laboratory, const std::string& path)
      : laboratory_(laboratory), process_(spawn({.argv = {"/bin/cat", path}}, output_.fd(), errors_.fd())) {}
  ~Reader() {
    if (!process_.is_running()) return;
    try {
      laboratory_.order("clear");
    } catch (const TestFailure& failure) {
      report_late_failure(failure.what());
    }
  }
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
