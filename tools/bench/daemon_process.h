// A real nvr-readerd, started for the bench and stopped after it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "nvr/error.h"
#include "tools/bench/child_process.h"

namespace nvr::bench {

struct DaemonOptions {
  std::filesystem::path program;
  std::filesystem::path directory;     // --dir
  std::filesystem::path socket;        // --socket
  std::filesystem::path log;           // its stderr; a file, since nobody reads along
  std::string engine;                  // --engine
  std::string device_kind;             // --device-kind
  std::vector<std::string> more = {};  // further options
};

class DaemonProcess {
 public:
  // Returns when the daemon has said that it is ready. The error holds what it said instead.
  [[nodiscard]] static Result<DaemonProcess> start(const DaemonOptions& options);

  [[nodiscard]] pid_t pid() const { return child_.pid(); }

 private:
  explicit DaemonProcess(ChildProcess child) : child_(std::move(child)) {}

  ChildProcess child_;
};

}  // namespace nvr::bench
