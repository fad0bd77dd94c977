#include "tests/support/slow_disk.h"

#include "tests/support/environment.h"

namespace nvr::test {

std::optional<std::string> SlowDisk::missing() {
  return "nvr-slowdisk was not built: libfuse3-dev is missing";
}

SlowDisk::SlowDisk(std::string directory) : directory_(std::move(directory)) { throw TestFailure(*missing()); }
SlowDisk::~SlowDisk() = default;
void SlowDisk::stall_opens(RecordingId id) { command("stall-open " + file_name_of(id)); }
void SlowDisk::stall_reads(RecordingId id) { command("stall-read " + file_name_of(id)); }
void SlowDisk::fail_reads(RecordingId id, std::uint64_t begin, std::uint64_t end) {
  command("fail " + file_name_of(id) + " " + std::to_string(begin) + " " + std::to_string(end));
}
void SlowDisk::release() { command("release"); }
void SlowDisk::command(const std::string& line) { throw TestFailure(line); }

}  // namespace nvr::test
