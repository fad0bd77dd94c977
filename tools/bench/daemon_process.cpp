#include "tools/bench/daemon_process.h"

#include <errno.h>
#include <fmt/format.h>
#include <unistd.h>

#include "tools/bench/child_process.h"

namespace nvr::bench {

Result<DaemonProcess> DaemonProcess::start(const DaemonOptions& options) {
  if (access(options.program.c_str(), X_OK) != 0)
    return fail_errno(errno,
                      fmt::format("cannot run {} (--daemon names nvr-readerd)", options.program.string()));
  std::vector<std::string> arguments = {"--device-kind", options.device_kind};
  arguments.insert(arguments.end(), options.more.begin(), options.more.end());
  return attempt([&] {
    return DaemonProcess(lab::DaemonCommand{.program = options.program,
                                            .directory = options.directory,
                                            .socket = options.socket,
                                            .engine = options.engine,
                                            .arguments = std::move(arguments)});
  });
}

}  // namespace nvr::bench
