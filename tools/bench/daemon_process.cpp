#include "tools/bench/daemon_process.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <chrono>
#include <thread>
#include <vector>

#include "shm/unique_fd.h"
#include "tools/bench/text_files.h"

namespace nvr::bench {
namespace {

constexpr auto kStartTimeout = std::chrono::seconds(20);

Result<ChildProcess> spawn(const DaemonOptions& options) {
  std::vector<std::string> words = {options.program.string(),
                                    "--dir",
                                    options.directory.string(),
                                    "--socket",
                                    options.socket.string(),
                                    "--engine",
                                    options.engine,
                                    "--device-kind",
                                    options.device_kind};
  words.insert(words.end(), options.more.begin(), options.more.end());
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const shm::UniqueFd log(open(options.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!log) return fail_errno(errno, "cannot create " + options.log.string());
  return ChildProcess::fork([&] {
    dup2(log.get(), STDERR_FILENO);
    execv(argv[0], argv.data());
    return 127;
  });
}

}  // namespace

Result<DaemonProcess> DaemonProcess::start(const DaemonOptions& options) {
  if (access(options.program.c_str(), X_OK) != 0)
    return fail_errno(errno,
                      fmt::format("cannot run {} (--daemon names nvr-readerd)", options.program.string()));
  auto child = spawn(options);
  if (!child) return tl::unexpected(child.error());
  DaemonProcess daemon(std::move(*child));
  const auto give_up = std::chrono::steady_clock::now() + kStartTimeout;
  while (text_of(options.log).find("ready") == std::string::npos) {
    if (daemon.child_.has_ended())
      return fail(Code::kUnavailable, "nvr-readerd ended at its start: " + text_of(options.log));
    if (std::chrono::steady_clock::now() > give_up)
      return fail(Code::kUnavailable, "nvr-readerd did not get ready: " + text_of(options.log));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return daemon;
}

}  // namespace nvr::bench
