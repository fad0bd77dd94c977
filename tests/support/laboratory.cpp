#include "tests/support/laboratory.h"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "tests/support/environment.h"

namespace nvr::test {

std::optional<std::string> Laboratory::missing() {
  if (*NVR_TEST_SLOWDISK == '\0') return "nvr-slowdisk was not built: libfuse3-dev is missing";
  if (geteuid() != 0) return "mounting and loop devices need root";
  if (access("/dev/fuse", R_OK | W_OK) != 0) return "no /dev/fuse on this machine, or no right to use it";
  if (access("/dev/loop-control", R_OK | W_OK) != 0)
    return "no loop devices on this machine, or no right to them";
  return std::nullopt;
}

Laboratory::Laboratory(const std::vector<std::string>& options) : directory_(parent_ / "laboratory") {
  std::vector<std::string> words = {"up", directory_};
  words.insert(words.end(), options.begin(), options.end());
  const ProgramResult result = run(words);
  if (result.exit.code != 0)
    throw TestFailure("no slow disk: " + result.errors +
                      "mounts and loop devices left behind: " + std::to_string(left_behind().size()));
  is_up_ = true;
}

Laboratory::~Laboratory() {
  if (!is_up_) return;
  try {
    const ProgramResult result = take_down();
    if (result.exit.code != 0) report_late_failure("the slow disk stays up: " + result.errors);
  } catch (const TestFailure& failure) {
    report_late_failure(failure.what());
  }
}

pid_t Laboratory::pid() const {
  pid_t pid = -1;
  std::ifstream(directory_ + "/pid") >> pid;
  if (pid <= 0) throw TestFailure("nvr-slowdisk's pid is not known");
  return pid;
}

std::string Laboratory::order(const std::string& line) {
  const ProgramResult result = run({"order", directory_, line});
  if (result.exit.code != 0) throw TestFailure("order '" + line + "' refused: " + result.errors);
  return result.output;
}

void Laboratory::cool() {
  const ProgramResult result = run({"cold", directory_});
  if (result.exit.code != 0) throw TestFailure("cannot cool the disk: " + result.errors);
}

ProgramResult Laboratory::take_down() {
  ProgramResult result = run({"down", directory_});
  if (result.exit.code == 0) is_up_ = false;
  return result;
}

std::vector<std::string> Laboratory::left_behind() const {
  std::vector<std::string> left;
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(directory_) != std::string::npos) left.push_back(line);
  }
  for (const auto& device : std::filesystem::directory_iterator("/sys/block")) {
    std::string behind;
    std::ifstream file(device.path() / "loop/backing_file");
    if (std::getline(file, behind) && behind.starts_with(directory_)) left.push_back(device.path());
  }
  return left;
}

ProgramResult Laboratory::run(std::vector<std::string> words) const {
  setenv("NVR_SLOWDISK", NVR_TEST_SLOWDISK, 1);
  words.insert(words.begin(), NVR_TEST_SLOW_DISK);
  words.insert(words.begin(), "/bin/bash");
  return run_program(words);
}

Reader::Reader(Laboratory& laboratory, const std::string& path)
    : laboratory_(laboratory),
      process_(spawn({.argv = {"/bin/cat", path}, .uid = {}, .max_descriptors = {}}, output_.fd(),
                     errors_.fd())) {}

Reader::~Reader() {
  if (!process_.is_running()) return;
  try {
    laboratory_.order("clear");
  } catch (const TestFailure& failure) {
    report_late_failure(failure.what());
  }
}

}  // namespace nvr::test
