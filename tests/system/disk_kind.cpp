// Disks of which the kernel does not tell what they are: file systems in user space have no device, and do
// not tell where a file lies.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

// Of the requests to the disk: how many wait.
std::uint64_t count_waiting(SlowDisk& disk) {
  const std::string status = disk.order("status");
  const std::string_view key = "waiting: ";
  const auto at = status.find(key);
  if (at == std::string::npos) throw TestFailure("the disk says " + status);
  return std::stoull(status.substr(at + key.size()));
}

TEST_CASE("a disk that nothing is told of is visited as a spinning one, and the log says so") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 32 * kChunkBytes, test_seed());
  const DaemonProcess daemon = site.start();
  REQUIRE(daemon.wait_for_log("fuse"));
  CHECK(daemon.wait_for_log("--device-kind solid"));
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  CHECK(daemon.status().at("visits").at("count") > 0);
}

TEST_CASE("a reserve that has no effect is not ignored silently", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start({"--device-kind", "solid", "--reserve", "20"});
  CHECK(daemon.wait_for_log("--reserve has no effect"));
}

// Each request of a segment that waits for the one before lets another stream's in between, at the price of
// two seeks.
TEST_CASE("a segment of a file system without places is asked for at once") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const ReleaseAtEnd release(disk);
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 256 * kChunkBytes, test_seed());
  const DaemonProcess daemon = site.start({"--device-kind", "rotational"});
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 64});
  Stream stream = open_stream(client, file);
  constexpr std::uint64_t kUntilVisited = 8;  // chunks: behind the first segment, which comes alone
  for (std::uint64_t i = 0; i < kUntilVisited; ++i) {
    const auto chunk = stream.next(in(kLongEnough));
    REQUIRE(chunk.has_value());
    REQUIRE(chunk->has_value());
  }
  disk.order("stall reads");
  // Two segments are on the disk at a time; by themselves they would be two requests.
  CHECK(wait_until([&] {
    static_cast<void>(stream.next(in(std::chrono::milliseconds(1))));
    return count_waiting(disk) >= 4;
  }));
}

}  // namespace
}  // namespace nvr::test
