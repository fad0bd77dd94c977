#include "tools/bench/slow_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "shm/unique_fd.h"
#include "tools/bench/text_files.h"

namespace nvr::bench {
namespace {

constexpr int kTries = 80;  // to take it down, 20 s

// Empty: cannot be looked at.
std::string read_ahead_path(const std::filesystem::path& mounted_at) {
  struct stat status = {};
  if (stat(mounted_at.c_str(), &status) != 0) return {};
  return fmt::format("/sys/dev/block/{}:{}/queue/read_ahead_kb", major(status.st_dev), minor(status.st_dev));
}

// In a session of its own: ^C at the terminal is for us, and the disk is taken down in order.
Result<void> run(std::vector<std::string> words, const std::filesystem::path& log) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const shm::UniqueFd output(open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!output) return fail_errno(errno, "cannot create " + log.string());
  const pid_t pid = fork();
  if (pid < 0) return fail_errno(errno, "cannot fork");
  if (pid == 0) {
    setsid();
    dup2(output.get(), STDOUT_FILENO);
    dup2(output.get(), STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return fail_errno(errno, "cannot wait for " + words.front());
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(Code::kUnavailable, fmt::format("{} {}: {}", words[0], words[1], text_of(log)));
}

}  // namespace

Result<SlowDisk> SlowDisk::up(const std::filesystem::path& script, const std::filesystem::path& directory,
                              const std::filesystem::path& log, const std::vector<std::string>& model) {
  if (geteuid() != 0) return fail(Code::kPermissionDenied, "a modelled disk needs root");
  if (access(script.c_str(), X_OK) != 0)
    return fail_errno(errno, fmt::format("cannot run {} (--slow-disk names it)", script.string()));
  std::vector<std::string> words = {script.string(), "up", directory.string()};
  words.insert(words.end(), model.begin(), model.end());
  if (auto done = run(std::move(words), log); !done) return tl::unexpected(done.error());
  return SlowDisk(script, directory, log);
}

SlowDisk::~SlowDisk() {
  if (script_.empty()) return;
  if (!read_ahead_before_.empty()) std::ofstream(read_ahead_path(mounted_at())) << read_ahead_before_;
  // Whoever has just ended may be in the mount for a moment longer: a daemon's mount namespace goes after it.
  Result<void> done;
  for (int tries = 0; tries < kTries; ++tries) {
    done = run({script_.string(), "down", directory_.string()}, log_);
    if (done) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
  fmt::print(stderr, "nvr-bench: {}\n", done.error().message);
}

Result<void> SlowDisk::set_read_ahead(unsigned kib) {
  const std::string path = read_ahead_path(mounted_at());
  if (read_ahead_before_.empty()) read_ahead_before_ = text_of(path);
  return write_text(std::to_string(kib), path);
}

Result<void> SlowDisk::forget() const {
  return run({script_.string(), "cold", directory_.string()}, log_);
}

}  // namespace nvr::bench
