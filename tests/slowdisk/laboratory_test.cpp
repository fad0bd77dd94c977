// The whole laboratory: an image, nvr-slowdisk, a loop device and ext4, brought up, broken, and taken down.
#include "tests/support/laboratory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>

#include "shm/unique_fd.h"
#include "tests/support/wait.h"

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
void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes << std::flush;
  if (!file) throw TestFailure("cannot write " + path);
}
std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
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

TEST_CASE("a slow disk with wrong options leaves nothing behind, and says what is wrong") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  try {
    const Laboratory disk({"--size", "64M", "--bandwidth", "much"});
    FAIL("it came up");
  } catch (const TestFailure& failure) {
    CHECK_THAT(failure.what(), Contains("'much' is no size") && Contains("left behind: 0"));
  }
}

}  // namespace
}  // namespace nvr::test
