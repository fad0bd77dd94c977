// The kind of disk that a directory lies on, for file systems without a device of their own. Needs root and
// loop devices.
#include "daemon/device.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "shm/unique_fd.h"
#include "tests/support/environment.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace nvr::daemon {
namespace {

using Catch::Matchers::Contains;

constexpr off_t kImageBytes = 256 << 20;  // sparse

test::ProgramResult run(const std::vector<std::string>& argv) {
  return test::run_program(argv);
}

bool is_done(const std::vector<std::string>& argv) {
  return to_string(run(argv).exit) == "exit 0";
}

Device describe(const std::string& directory, DeviceKind wanted = DeviceKind::kAuto) {
  const shm::UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(fd);
  return describe_device(fd.get(), wanted);
}

// Unmounted when its owner goes.
class Mounted {
 public:
  explicit Mounted(std::string place) : place_(std::move(place)) {}
  ~Mounted() {
    if (is_mounted) umount2(place_.c_str(), MNT_DETACH);
  }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;

  bool is_mounted = false;

 private:
  std::string place_;
};

class LoopDevice {
 public:
  explicit LoopDevice(const std::string& image) {
    const shm::UniqueFd fd(open(image.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (ftruncate(fd.get(), kImageBytes) != 0) return;
    const auto result = run({"/sbin/losetup", "--find", "--show", image});
    if (to_string(result.exit) == "exit 0") path = result.output.substr(0, result.output.find('\n'));
  }
  ~LoopDevice() {
    if (!path.empty()) static_cast<void>(run({"/sbin/losetup", "--detach", path}));
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;

  std::string path;  // empty: none could be had
};

TEST_CASE("device: btrfs on two disks is of their kind, though the kernel has no device for it") {
  constexpr const char* kMkfs = "/sbin/mkfs.btrfs";
  if (geteuid() != 0) return test::skip_or_fail("loop devices need root");
  if (access(kMkfs, X_OK) != 0)
    return test::skip_or_fail("there is no mkfs.btrfs (apt-get install btrfs-progs)");
  const test::TempDir scratch;
  const std::string place = scratch / "mounted";
  std::filesystem::create_directory(place);
  const LoopDevice one(scratch / "one");
  const LoopDevice other(scratch / "other");
  if (one.path.empty() || other.path.empty()) return test::skip_or_fail("there are no loop devices");
  REQUIRE(is_done({kMkfs, "-q", "-f", "-d", "single", one.path, other.path}));
  Mounted mounted(place);
  mounted.is_mounted =
      mount(one.path.c_str(), place.c_str(), "btrfs", 0, ("device=" + other.path).c_str()) == 0;
  if (!mounted.is_mounted) return test::skip_or_fail("the kernel has no btrfs");
  const std::string subvolume = place + "/sub";
  std::filesystem::create_directory(subvolume);
  struct stat st = {};
  REQUIRE(stat(place.c_str(), &st) == 0);
  REQUIRE(major(st.st_dev) == 0);

  const Device images = describe(scratch.path());
  for (const std::string& directory : {place, subvolume}) {
    const Device found = describe(directory);
    CHECK(found.known);
    CHECK(found.file_system == "btrfs");
    CHECK_THAT(found.queue, Contains("/sys/fs/btrfs/"));
    if (images.known) CHECK(found.rotational == images.rotational);
  }
  CHECK(describe(place, DeviceKind::kSolid).rotational == false);
  CHECK(describe(place, DeviceKind::kRotational).rotational == true);
}

TEST_CASE("device: an overlay is of the kind of its layers") {
  if (geteuid() != 0) return test::skip_or_fail("mounts need root");
  const test::TempDir scratch;
  for (const char* const name : {"low er", "upper", "work", "mounted"})
    std::filesystem::create_directory(scratch / name);
  const Device layers = describe(scratch.path());
  if (!layers.known)
    return test::skip_or_fail("the kernel does not tell what the temporary directory lies on");
  const std::string place = scratch / "mounted";
  const std::string options = "lowerdir=" + (scratch / "low er") + ",upperdir=" + (scratch / "upper") +
                              ",workdir=" + (scratch / "work");
  Mounted mounted(place);
  mounted.is_mounted = mount("overlay", place.c_str(), "overlay", 0, options.c_str()) == 0;
  if (!mounted.is_mounted) return test::skip_or_fail("no overlay can be mounted here");
  const Device found = describe(place);
  CHECK(found.known);
  CHECK(found.rotational == layers.rotational);
  CHECK(found.file_system == "overlay");
}

TEST_CASE("device: what nobody tells of counts as spinning, and what memory holds does not") {
  const Device found = describe("/proc/self");
  CHECK_FALSE(found.known);
  CHECK(found.rotational);
  CHECK(found.file_system == "proc");
  CHECK_THAT(doubts_about(found, 0), Contains("proc") && Contains("--device-kind solid"));
  CHECK(doubts_about(describe("/proc/self", DeviceKind::kSolid), 0).empty());
  const Device memory = describe("/dev/shm");
  if (memory.file_system != "tmpfs") return test::skip_or_fail("/dev/shm is no tmpfs");
  CHECK(memory.known);
  CHECK_FALSE(memory.rotational);
}

TEST_CASE("device: a reserve of a solid disk is not ignored silently") {
  Device device = {
      .rotational = false, .known = true, .file_system = {}, .request_bytes = 1 << 20, .queue = {}};
  CHECK(doubts_about(device, 0).empty());
  CHECK_THAT(doubts_about(device, 20), Contains("--reserve") && Contains("--device-kind rotational"));
  device.rotational = true;
  CHECK(doubts_about(device, 20).empty());
}

}  // namespace
}  // namespace nvr::daemon
