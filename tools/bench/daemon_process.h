// A real nvr-readerd, started for the bench and stopped after it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "nvr/error.h"
#include "tools/lab/daemon_process.h"

namespace nvr::bench {

struct DaemonOptions {
  std::filesystem::path program;
  std::filesystem::path directory;     // --dir
  std::filesystem::path socket;        // --socket
  std::string engine;                  // --engine
  std::string device_kind;             // --device-kind
  std::vector<std::string> more = {};  // further options
};

class DaemonProcess : public lab::DaemonProcess {
 public:
  // Returns when the daemon has said that it is ready. The error holds what it said instead.
  [[nodiscard]] static Result<DaemonProcess> start(const DaemonOptions& options);

 private:
  using lab::DaemonProcess::DaemonProcess;
};

}  // namespace nvr::bench
