#include "tests/support/daemon_process.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

namespace nvr::test {

DaemonProcess::DaemonProcess(const DaemonOptions& options)
    : lab::DaemonProcess({.program = path_of_daemon(),
                          .directory = options.directory,
                          .socket = options.socket,
                          .engine = options.engine,
                          .arguments = options.arguments,
                          .uid = options.uid,
                          .max_descriptors = options.max_descriptors,
                          .before_exec = [&options] { return impose(options.restrictions); },
                          .wait_until_ready = options.wait_until_ready}) {}

Site::Site(const std::string& name) : directory_(root_ / name) {
  if (mkdir(directory_.c_str(), 0755) != 0)
    throw TestFailure("cannot create " + directory_ + ": " + strerror(errno));
}

RecordingFile Site::record(RecordingId id, std::uint64_t size) const {
  return make_recording(directory_, id, size, test_seed() + id.composite());
}

DaemonOptions Site::options(std::vector<std::string> arguments) const {
  return {.directory = directory_, .socket = socket(), .arguments = std::move(arguments)};
}

DaemonProcess Site::start(std::vector<std::string> arguments) const {
  return DaemonProcess(options(std::move(arguments)));
}

}  // namespace nvr::test
