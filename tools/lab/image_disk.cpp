#include "tools/lab/image_disk.h"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tools/lab/failure.h"
#include "tools/lab/wait.h"
#include "tools/slowdisk/control.h"

namespace nvr::lab {

ImageDisk::ImageDisk(const std::vector<std::string>& options, ImageDiskTools tools)
    : tools_(std::move(tools)), parent_(tools_.parent), directory_(parent_ / "laboratory") {
  std::vector<std::string> words = {"up", directory_};
  words.insert(words.end(), options.begin(), options.end());
  const ProgramResult result = run(words);
  if (result.exit.code != 0)
    throw Failure("no slow disk: " + result.errors +
                  "mounts and loop devices left behind: " + std::to_string(left_behind().size()));
  is_up_ = true;
}

ImageDisk::~ImageDisk() {
  if (!is_up_) return;
  // A process that has just ended may be in the mount for a moment longer: a daemon's mount namespace goes
  // after it.
  std::string said;
  const auto is_down = [&] {
    const ProgramResult result = take_down();
    said = result.errors;
    return result.exit.code == 0;
  };
  try {
    if (!wait_until(is_down)) report_late_failure("the slow disk stays up: " + said);
  } catch (const Failure& failure) {
    report_late_failure(failure.what());
  }
}

pid_t ImageDisk::pid() const {
  pid_t pid = -1;
  std::ifstream(directory_ + "/pid") >> pid;
  if (pid <= 0) throw Failure("nvr-slowdisk's pid is not known");
  return pid;
}

std::string ImageDisk::order(const std::string& line) {
  // Looking for a file's place waits for the disk where that hangs: in a process that can be given up.
  if (line.find(" file ") != std::string::npos) {
    const ProgramResult result = run({"order", directory_, line});
    if (result.exit.code != 0) throw Failure("order '" + line + "' refused: " + result.errors);
    return result.output;
  }
  const auto said = slowdisk::send_order(directory_ + "/control", line);
  if (!said) throw Failure("order '" + line + "' refused: " + said.error().message);
  return *said;
}

void ImageDisk::cool() {
  const ProgramResult result = run({"cold", directory_});
  if (result.exit.code != 0) throw Failure("cannot cool the disk: " + result.errors);
}

ProgramResult ImageDisk::take_down() {
  ProgramResult result = run({"down", directory_});
  if (result.exit.code == 0) is_up_ = false;
  return result;
}

std::vector<std::string> ImageDisk::left_behind(const std::string& directory) {
  std::vector<std::string> left;
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(directory) != std::string::npos) left.push_back(line);
  }
  for (const auto& device : std::filesystem::directory_iterator("/sys/block")) {
    std::string behind;
    std::ifstream file(device.path() / "loop/backing_file");
    if (std::getline(file, behind) && behind.starts_with(directory)) left.push_back(device.path());
  }
  return left;
}

// In a session of its own: an interrupt at the terminal does not end it half-way.
ProgramResult ImageDisk::run(std::vector<std::string> words) const {
  if (!tools_.server.empty()) setenv("NVR_SLOWDISK", tools_.server.c_str(), 1);
  words.insert(words.begin(), {"/bin/bash", tools_.script});
  return run_program({.argv = std::move(words), .before_exec = [] { return setsid() > 0; }});
}

}  // namespace nvr::lab
