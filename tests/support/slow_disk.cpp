#include "tests/support/slow_disk.h"

#include <unistd.h>

#include "tools/lab/programs.h"
#include "tools/slowdisk/control.h"

namespace nvr::test {
namespace {

std::vector<std::string> command(std::string backing, std::string directory, std::string control,
                                 const std::vector<std::string>& options) {
  std::vector<std::string> words = {path_of_slowdisk(),
                                    "serve",
                                    std::move(backing),
                                    std::move(directory),
                                    "--control",
                                    std::move(control),
                                    "--forget-at-open",
                                    "--seek",
                                    "0",
                                    "--seek-shortest",
                                    "0",
                                    "--rotation",
                                    "0",
                                    "--bandwidth",
                                    "0"};
  words.insert(words.end(), options.begin(), options.end());
  return words;
}

}  // namespace

std::optional<std::string> SlowDisk::missing() {
  if (path_of_slowdisk().empty()) return "nvr-slowdisk was not built: libfuse3-dev is missing";
  if (access("/dev/fuse", R_OK | W_OK) != 0) return "no /dev/fuse on this machine, or no right to use it";
  if (geteuid() != 0) return "mounting with allow_other needs root";
  return std::nullopt;
}

SlowDisk::SlowDisk(std::string directory, const std::vector<std::string>& options)
    : server_("nvr-slowdisk",
              {.argv = command(backing_.path(), std::move(directory), control_ / "control", options)}) {
  server_.require_ready("ready");
}

std::string SlowDisk::order(const std::string& line) {
  const auto said = slowdisk::send_order(control_ / "control", line);
  if (!said) throw TestFailure("the slow disk does not '" + line + "': " + said.error().message);
  return *said;
}

void SlowDisk::stall_opens(RecordingId id) {
  order("stall opens file " + file_name_of(id));
}
void SlowDisk::stall_reads(RecordingId id) {
  order("stall reads file " + file_name_of(id));
}
void SlowDisk::fail_reads(RecordingId id, std::uint64_t begin, std::uint64_t end) {
  order("eio file " + file_name_of(id) + " " + std::to_string(begin) + "-" + std::to_string(end));
}
void SlowDisk::wait_until_stuck(RecordingId id) {
  const std::string wanted = "of file \"" + file_name_of(id) + "\"\n";
  if (!wait_until([&] { return order("status").find(wanted) != std::string::npos; }))
    throw TestFailure("nothing gets stuck in " + to_string(id));
}
void SlowDisk::set_read_latency(std::chrono::microseconds latency) {
  latency_ = "latency " + std::to_string(latency.count()) + "us reads";
  order(latency_);
}
std::uint64_t SlowDisk::bytes_read() {
  const std::string status = order("status");  // "done: 5 requests, 4096 bytes read, ..."
  return std::stoull(status.substr(status.find(',') + 1));
}
void SlowDisk::release() {
  order("clear");
  if (!latency_.empty()) order(latency_);
}

ReleaseAtEnd::~ReleaseAtEnd() {
  try {
    disk_.release();
  } catch (const TestFailure& failure) {
    report_late_failure(failure.what());
  }
}

}  // namespace nvr::test
