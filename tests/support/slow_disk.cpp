#include "tests/support/slow_disk.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/support/environment.h"

namespace nvr::test {

std::optional<std::string> SlowDisk::missing() {
  if (*NVR_TEST_SLOW_FS == '\0') return "the slow file system was not built: libfuse3-dev is missing";
  if (access("/dev/fuse", R_OK | W_OK) != 0) return "no /dev/fuse on this machine, or no right to use it";
  if (geteuid() != 0) return "mounting with allow_other needs root";
  return std::nullopt;
}

SlowDisk::SlowDisk(std::string directory) : directory_(std::move(directory)) {
  int to[2];
  int from[2];
  if (pipe2(to, O_CLOEXEC) != 0) throw TestFailure("cannot create a pipe");
  const shm::UniqueFd commands(to[0]);
  commands_.reset(to[1]);
  if (pipe2(from, O_CLOEXEC) != 0) throw TestFailure("cannot create a pipe");
  answers_.reset(from[0]);
  const shm::UniqueFd output(from[1]);
  process_.emplace(
      spawn({.argv = {NVR_TEST_SLOW_FS, backing_.path(), directory_}, .uid = {}, .max_descriptors = {}},
            output.get(), errors_.fd(), commands.get()));
  expect_answer("ready");
}

SlowDisk::~SlowDisk() {
  { const ReleaseAtEnd now(*this); }
  if (umount2(directory_.c_str(), MNT_DETACH) != 0) report_late_failure("cannot unmount " + directory_);
  if (!process_->wait()) report_late_failure("the slow file system does not end; it said: " + errors_.text());
}

void SlowDisk::stall_opens(RecordingId id) {
  command("stall-open " + file_name_of(id));
}
void SlowDisk::stall_reads(RecordingId id) {
  command("stall-read " + file_name_of(id));
}
void SlowDisk::fail_reads(RecordingId id, std::uint64_t begin, std::uint64_t end) {
  command("fail " + file_name_of(id) + " " + std::to_string(begin) + " " + std::to_string(end));
}
void SlowDisk::wait_until_stuck(RecordingId id) {
  command("await " + file_name_of(id));
}
void SlowDisk::set_read_latency(std::chrono::microseconds latency) {
  command("latency " + std::to_string(latency.count()));
}
void SlowDisk::release() {
  command("release");
}

ReleaseAtEnd::~ReleaseAtEnd() {
  try {
    disk_.release();
  } catch (const TestFailure& failure) {
    report_late_failure(failure.what());
  }
}

void SlowDisk::command(const std::string& line) {
  const std::string bytes = line + '\n';
  if (write(commands_.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    throw TestFailure("the slow disk is gone: " + errors_.text());
  expect_answer("ok");
}

void SlowDisk::expect_answer(std::string_view expected) {
  pollfd entry = {.fd = answers_.get(), .events = POLLIN, .revents = 0};
  std::string answer(256, '\0');
  const bool spoke = poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(kLongEnough).count())) == 1;
  const ssize_t length = spoke ? read(answers_.get(), answer.data(), answer.size()) : -1;
  answer.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
  if (!answer.starts_with(expected))
    throw TestFailure("the slow disk said '" + answer + "': " + errors_.text());
}

}  // namespace nvr::test
