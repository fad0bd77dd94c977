// nvr-readerd under test, and where most tests start it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/support/environment.h"
#include "tests/support/restrictions.h"
#include "tools/lab/daemon_process.h"
#include "tools/lab/programs.h"
#include "tools/lab/recording_file.h"
#include "tools/lab/temp_dir.h"

namespace nvr::test {

struct DaemonOptions {
  std::string directory;
  std::string socket;
  std::vector<std::string> arguments = {};  // more of them
  std::optional<uid_t> uid = {};
  std::optional<rlim_t> max_descriptors = {};
  Restrictions restrictions = {};
  std::string engine = engine_under_test();
  bool wait_until_ready = true;
};

class DaemonProcess : public lab::DaemonProcess {
 public:
  explicit DaemonProcess(const DaemonOptions& options);
};

// A directory of sample files, a place for the socket, and how most tests start a daemon there.
class Site {
 public:
  explicit Site(const std::string& name = "samples");

  [[nodiscard]] const TempDir& root() const { return root_; }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string socket() const { return root_ / "reader.sock"; }

  // A recording with a seed of its own.
  [[nodiscard]] RecordingFile record(RecordingId id, std::uint64_t size) const;
  [[nodiscard]] DaemonOptions options(std::vector<std::string> arguments = {}) const;
  [[nodiscard]] DaemonProcess start(std::vector<std::string> arguments = {}) const;

 private:
  TempDir root_;
  std::string directory_;
};

}  // namespace nvr::test
