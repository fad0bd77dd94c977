// The whole laboratory: an image, nvr-slowdisk, a loop device and ext4, brought up, broken, and taken down.
#include "tests/support/laboratory.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <filesystem>
#include <future>
#include <set>
#include <sstream>
#include <thread>

#include "shm/unique_fd.h"
#include "tests/support/slow_disk.h"
#include "tools/lab/proc.h"
#include "tools/lab/programs.h"
#include "tools/lab/recording_file.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

constexpr std::uint64_t kBlock_bytes = 4096;
constexpr std::uint64_t kMiB = 1 << 20;

// A disk that is as fast as it can be: these tests are about faults.
const std::vector<std::string> kFast = {"--size",     "64M", "--seek",      "0",
                                        "--rotation", "0",   "--bandwidth", "0"};

std::string random_bytes(std::uint64_t length) {
  std::string bytes(length, '\0');
  for (char& byte : bytes) byte = static_cast<char>(test_random()());
  return bytes;
}
// One block straight from the disk: 0, or the errno.
int read_block(const std::string& path, std::uint64_t offset) {
  const shm::UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (!fd) return errno;
  alignas(kBlock_bytes) char block[kBlock_bytes];
  return pread(fd.get(), block, sizeof(block), static_cast<off_t>(offset)) < 0 ? errno : 0;
}

// Whether the device that the file is on says that it spins.
bool is_rotational(const std::string& path) {
  struct stat st = {};
  if (stat(path.c_str(), &st) != 0) throw TestFailure("cannot stat " + path);
  const std::string device = std::to_string(major(st.st_dev)) + ":" + std::to_string(minor(st.st_dev));
  return read_file("/sys/dev/block/" + device + "/queue/rotational") == "1\n";
}

TEST_CASE("a slow disk serves exact bytes, fails where it is told to, stalls, and goes without a trace") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  Laboratory disk(kFast);
  const std::string bytes = random_bytes(8 * kMiB + 12345);
  const std::string other = random_bytes(kMiB);
  write_file(disk / "recording", bytes);
  write_file(disk / "other", other);

  CHECK(is_rotational(disk / "recording"));

  disk.cool();
  CHECK(read_file(disk / "recording") == bytes);
  CHECK_THAT(disk.order("status"), Contains("requests") && !Contains("done: 0 requests"));

  // A byte range of a file fails, and only that.
  disk.order("eio file recording 1M-1028K");
  disk.cool();
  CHECK(read_block(disk / "recording", kMiB) == EIO);
  CHECK(read_block(disk / "recording", kMiB - kBlock_bytes) == 0);
  CHECK(read_block(disk / "recording", kMiB + kBlock_bytes) == 0);
  CHECK(read_file(disk / "other") == other);
  Reader unlucky(disk, disk / "recording");
  REQUIRE(unlucky.wait().has_value());
  CHECK_THAT(unlucky.errors(), Contains("Input/output error"));
  CHECK(unlucky.bytes() == bytes.substr(0, kMiB));
  disk.order("clear");

  // A stall holds a reader, others go past it, and it finishes when the disk comes back.
  disk.cool();
  disk.order("stall file recording 4M-8M");
  Reader patient(disk, disk / "recording");
  CHECK(wait_until([&] { return disk.order("status").find("stalled") != std::string::npos; }));
  CHECK(read_file(disk / "other") == other);
  CHECK(patient.is_running());
  CHECK(patient.bytes().size() <= 4 * kMiB);
  disk.order("resume");
  CHECK(patient.wait() == Exit{.code = 0, .signal = {}});
  CHECK(patient.bytes() == bytes);

  // Short reads and a vanished disk, as the block layer sees them.
  disk.order("short");
  disk.cool();
  CHECK(read_file(disk / "recording") == bytes);
  disk.order("clear");
  disk.order("vanish");
  CHECK(read_block(disk / "recording", 0) == EIO);
  disk.order("clear");
  CHECK(read_block(disk / "recording", 0) == 0);

  CHECK_THAT(read_file(disk.directory() + "/log"), Contains(" EIO 1:eio ") && Contains("order: resume"));
  const ProgramResult down = disk.take_down();
  CHECK(down.errors == "");
  CHECK(down.exit.code == 0);
  CHECK(disk.left_behind() == std::vector<std::string>());
  CHECK(access(disk.directory().c_str(), F_OK) != 0);
}

TEST_CASE("a slow disk whose program was killed during a stall comes down all the same") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  Laboratory disk(kFast);
  write_file(disk / "recording", random_bytes(kMiB));
  disk.cool();
  disk.order("stall");
  {
    Reader reader(disk, disk / "recording");
    CHECK(wait_until([&] { return disk.order("status").find("stalled") != std::string::npos; }));
    REQUIRE(kill(disk.pid(), SIGKILL) == 0);
    const auto exit = reader.wait();
    REQUIRE(exit.has_value());
    CHECK(exit->code != 0);
  }
  const ProgramResult down = disk.take_down();
  CHECK(down.errors == "");
  CHECK(down.exit.code == 0);
  CHECK(disk.left_behind() == std::vector<std::string>());
}

// As a container does that was started before: in a mount namespace of its own the file system lives on.
TEST_CASE("a disk that is made cold is cold although others have its file system mounted") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  Laboratory disk(kFast);
  write_file(disk / "recording", random_bytes(kMiB));
  std::promise<bool> is_kept;
  std::promise<void> is_over;
  std::thread keeper([&] {
    is_kept.set_value(unshare(CLONE_NEWNS) == 0 &&
                      mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    is_over.get_future().wait();
  });
  CHECK(is_kept.get_future().get());
  disk.cool();
  disk.order("stall");
  const shm::UniqueFd fd(open((disk / "recording").c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> block;
  iovec place = {.iov_base = block.data(), .iov_len = block.size()};
  CHECK(preadv2(fd.get(), &place, 1, 0, RWF_NOWAIT) == -1);
  CHECK(errno == EAGAIN);
  disk.order("clear");
  is_over.set_value();
  keeper.join();
}

TEST_CASE("a slow disk with wrong options leaves nothing behind, and says what is wrong") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  try {
    const Laboratory disk({"--size", "64M", "--bandwidth", "much"});
    FAIL("it came up");
  } catch (const TestFailure& failure) {
    CHECK_THAT(failure.what(), Contains("'much' is no size") && Contains("left behind: 0"));
  }
}

// The commands in the first block below a heading of the README.
std::vector<std::string> commands_below(const std::string& heading) {
  const std::string readme = read_file(source_directory() + "/README.md");
  const auto begin = readme.find("```\n", readme.find("\n## " + heading + "\n")) + 4;
  std::istringstream block(readme.substr(begin, readme.find("```", begin) - begin));
  std::vector<std::string> commands;
  for (std::string line; std::getline(block, line);) {
    if (!line.empty()) commands.push_back(line);
  }
  return commands;
}

// A clone of the repository as far as tools/slow-disk goes, and a shell in it.
class Clone {
 public:
  Clone() {
    std::filesystem::create_directory(directory_ / "tools");
    std::filesystem::create_directory(directory_ / "build");
    std::filesystem::copy(source_directory() + "/tools/slow-disk", directory_ / "tools");
  }
  [[nodiscard]] std::string operator/(const std::string& name) const { return directory_ / name; }
  [[nodiscard]] ProgramResult shell(const std::string& command) const {
    return run_program({"/bin/bash", "-c",
                        "unset NVR_SLOWDISK; sudo() { \"$@\"; }; cd " + directory_.path() + "\n" + command});
  }

 private:
  TempDir directory_;
};

TEST_CASE("the README's commands for a dying disk work as written, where only build/release was built") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  const Clone clone;
  const auto build = std::filesystem::path(path_of_slowdisk()).parent_path().parent_path();
  std::filesystem::create_directory_symlink(build, clone / "build/release");
  std::filesystem::create_directory(clone / "recordings");
  const std::string recording = random_bytes(2 * kMiB);
  write_file(clone / "recordings/00000003001c1ba6", recording);
  const std::vector<std::string> commands = commands_below("Try your own recorder on a dying disk");
  REQUIRE(commands.size() >= 10);
  for (std::string command : commands) {
    const std::string place = "/tmp/lab";
    for (auto at = command.find(place); at != std::string::npos; at = command.find(place, at + 1))
      command.replace(at, place.size(), clone / "lab");
    const ProgramResult result = clone.shell(command);
    INFO(command << '\n' << result.output << result.errors);
    CHECK(result.exit == Exit{.code = 0, .signal = {}});
    if (command.starts_with("cp ")) CHECK(read_file(clone / "lab/disk/00000003001c1ba6") == recording);
    if (command.find(" status") != std::string::npos)
      CHECK_THAT(result.output, Contains("eio") && Contains("delay 300ms 10%"));
  }
  if (access((clone / "lab").c_str(), F_OK) == 0) static_cast<void>(clone.shell("tools/slow-disk down lab"));
  CHECK(ImageDisk::left_behind(clone / "lab") == std::vector<std::string>());
}

TEST_CASE("a clone without nvr-slowdisk is told what is missing, and the command that builds it") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  const Clone clone;
  const ProgramResult result = clone.shell("tools/slow-disk up lab");
  CHECK(result.exit == Exit{.code = 1, .signal = {}});
  CHECK_THAT(result.errors, Contains("nvr-slowdisk is neither in " + (clone / "build") + " nor in PATH") &&
                                Contains("--target nvr-slowdisk"));
}

TEST_CASE("a directory is served with its names, sizes, links and bytes, and cannot be written") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const TempDir mountpoint;
  SlowDisk disk(mountpoint.path());
  const std::string bytes = random_bytes(3 * kMiB + 1);
  const std::string other = random_bytes(64 << 10);
  std::filesystem::create_directory(disk.backing() + "/sub");
  write_file(disk.backing() + "/a", bytes);
  write_file(disk.backing() + "/sub/b c", other);
  std::filesystem::create_symlink("sub/b c", disk.backing() + "/link");

  std::set<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(mountpoint.path()))
    names.insert(entry.path().lexically_relative(mountpoint.path()));
  CHECK(names == std::set<std::string>{"a", "link", "sub", "sub/b c"});
  CHECK(read_file(mountpoint / "a") == bytes);
  CHECK(read_file(mountpoint / "link") == other);
  CHECK(open((mountpoint / "a").c_str(), O_WRONLY | O_CLOEXEC) < 0);
  CHECK(errno == EROFS);

  disk.order("truncate file a 1M");
  CHECK(std::filesystem::file_size(mountpoint / "a") == kMiB);
  CHECK(read_file(mountpoint / "a") == bytes.substr(0, kMiB));
  disk.order("clear");
  CHECK(read_file(mountpoint / "a") == bytes);
  disk.order("eio file \"sub/b c\" 4096-8192");
  evict(mountpoint / "sub/b c");
  CHECK(read_block(mountpoint / "sub/b c", 0) == 0);
  CHECK(read_block(mountpoint / "sub/b c", 4096) == EIO);
  CHECK(read_block(mountpoint / "a", 4096) == 0);
  CHECK_THAT(disk.order("status"), Contains("requests failed") && Contains("fault 2: eio file \"sub/b c\""));
}

}  // namespace
}  // namespace nvr::test
