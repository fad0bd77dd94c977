// Another directory comes in the place of DIR while the daemon serves it.
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "tests/support/daemon_process.h"
#include "tests/support/environment.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

// A file system mounted over a directory; gone at the end, if nothing else has unmounted it.
class MountedOver {
 public:
  explicit MountedOver(std::string directory) : directory_(std::move(directory)) {
    if (mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=1m") != 0)
      throw TestFailure("cannot mount a tmpfs at " + directory_);
  }
  ~MountedOver() { unmount(); }
  MountedOver(const MountedOver&) = delete;
  MountedOver& operator=(const MountedOver&) = delete;

  void unmount() {
    if (!std::exchange(is_unmounted_, true)) umount2(directory_.c_str(), MNT_DETACH);
  }

 private:
  std::string directory_;
  bool is_unmounted_ = false;
};

// Reads on until the error.
Error end_of(Stream& stream) {
  for (;;)
    if (auto chunk = stream.next(); chunk && !*chunk) return chunk->error();
}

std::string end_of(DaemonProcess& daemon) {
  const auto exit = daemon.wait();
  return exit ? to_string(*exit) : "it goes on";
}

TEST_CASE(
    "a disk that is mounted over DIR ends the daemon with status 3, and streams resume with the next one",
    "[once]") {
  if (geteuid() != 0) return skip_or_fail("mounting needs root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  DaemonProcess daemon = site.start();
  Client plain = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  Stream cut =
      open_stream(plain, {.recording = file.id, .begin = 0, .follow = std::chrono::milliseconds::max()});
  REQUIRE(code_of(cut.next()) == Code::kOk);
  Client resuming =
      connect_to(daemon, {.streams = 1, .slots_per_stream = 2, .resume = std::chrono::seconds(60)});
  Stream stream = open_stream(resuming, file);
  auto first = stream.next();
  REQUIRE(code_of(first) == Code::kOk);
  CHECK(file.difference(0, (*first)->bytes()) == "");

  MountedOver other(site.directory());
  CHECK(end_of(daemon) == "exit 3");
  const Error error = end_of(cut);
  CHECK(error.code == Code::kUnavailable);
  CHECK_THAT(error.message, Contains(site.directory() + " is another directory now"));
  CHECK_THAT(daemon.log(), Contains(site.directory() + " is another directory now"));

  other.unmount();
  const DaemonProcess next = site.start();
  CHECK(problem_reading(stream, file, (*first)->bytes().size(), file.size) == "");
}

TEST_CASE("a mount elsewhere, and a DIR that is renamed and replaced, leave the daemon as it is", "[once]") {
  if (geteuid() != 0) return skip_or_fail("mounting needs root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, kChunkBytes);
  const DaemonProcess daemon = site.start();
  const std::string elsewhere = site.root() / "elsewhere";
  REQUIRE(mkdir(elsewhere.c_str(), 0755) == 0);
  const std::string aside = site.root() / "aside";
  REQUIRE(rename(site.directory().c_str(), aside.c_str()) == 0);
  REQUIRE(mkdir(site.directory().c_str(), 0755) == 0);
  const MountedOver mounted(elsewhere);
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("an empty mount point is not served for the disk that is to be mounted there (--expect-file)",
          "[once]") {
  const Site site;
  const std::string here = site.directory() + "/.disk1";
  const ProgramResult refused = run_program(
      {path_of_daemon(), "--dir", site.directory(), "--socket", site.socket(), "--expect-file", ".disk1"});
  CHECK(to_string(refused.exit) == "exit 2");
  CHECK_THAT(refused.errors,
             Contains(site.directory() + " has no .disk1 (--expect-file; is its disk mounted?)"));
  const ProgramResult absolute = run_program(
      {path_of_daemon(), "--dir", site.directory(), "--socket", site.socket(), "--expect-file", here});
  CHECK(to_string(absolute.exit) == "exit 2");
  CHECK_THAT(absolute.errors, Contains("--expect-file is relative to DIR"));

  DaemonOptions options = site.options({"--wait-for-dir", "--expect-file", ".disk1"});
  options.wait_until_ready = false;
  DaemonProcess daemon(options);
  REQUIRE(daemon.wait_for_log("has no .disk1"));
  CHECK_THAT(daemon.log(), !Contains("ready"));
  std::ofstream(here) << "";
  CHECK(daemon.wait_until_ready());
}

TEST_CASE("an empty DIR is served with a word about it, and a relative one is named whole", "[once]") {
  const Site site;
  DaemonOptions options = site.options();
  options.directory = std::filesystem::relative(site.directory());
  const std::string whole = std::filesystem::absolute(options.directory);
  {
    const DaemonProcess daemon(options);
    CHECK_THAT(daemon.log(), Contains(whole + " is empty: is its disk mounted?"));
  }
  static_cast<void>(site.record({1, 1}, 1));
  const DaemonProcess daemon(options);
  CHECK_THAT(daemon.log(), Contains("ready: serving " + whole + " at ") && !Contains("is empty"));
}

}  // namespace
}  // namespace nvr::test
