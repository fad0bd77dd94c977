// A container may have a time namespace of its own: CLOCK_MONOTONIC there differs from the daemon's by as
// much as its maker likes. For how long the disk has been stuck must not.
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>

#include "tests/support/client_process.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

namespace nvr::test {
namespace {

using std::chrono::milliseconds;

constexpr auto kAhead = std::chrono::seconds(100'000);
constexpr char kOffsets[] = "monotonic 100000 0\n";

std::optional<std::string> missing() {
  if (auto reason = SlowDisk::missing()) return reason;
  if (geteuid() != 0 || !std::filesystem::exists("/proc/self/timens_offsets"))
    return "a time namespace needs root and a kernel that has them";
  return std::nullopt;
}

// This process goes to a namespace whose clock is kAhead. It must have one thread, which no process has with
// ThreadSanitizer. Async-signal-safe.
bool go_ahead() {
  if (unshare(CLONE_NEWTIME) != 0) return false;
  const shm::UniqueFd offsets(open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC));
  if (write(offsets.get(), kOffsets, strlen(kOffsets)) < 0) return false;
  const shm::UniqueFd created(open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC));
  return setns(created.get(), CLONE_NEWTIME) == 0;
}

// A client of a stuck disk. Throws where it hears another time than the disk can have been stuck for.
void check_what_is_heard(const std::string& socket, const RecordingFile& file, Clock::time_point begun) {
  Client client = connect_to(socket, {.streams = 1, .slots_per_stream = 2});
  Stream stream = open_stream(client, file);
  Reporter::require(wait_until([&] { return client.disk_status().stuck_for >= std::chrono::seconds(1); }),
                    "it is not told that the disk is stuck");
  const auto late = stream.next(in(milliseconds(1)));
  const auto told = client.disk_status().stuck_for;
  const std::chrono::nanoseconds most = Clock::now() - begun;
  Reporter::require(told <= most, "the disk is said to have been stuck for too long");
  Reporter::require(code_of(late) == Code::kDeadlineExceeded, "no deadline was exceeded");
  const std::string text = late->error().message;
  const auto said = text.find("stuck for ");
  Reporter::require(said != std::string::npos, "it is not said that the disk is stuck: " + text);
  Reporter::require(std::stod(text.substr(said + 10)) <= std::chrono::duration<double>(most).count() + 0.1,
                    text);
}

TEST_CASE("a client whose clock is ahead of the daemon's hears how long the disk has been stuck",
          "[once][plain]") {
  if (const auto reason = missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 9}, 4 * kChunkBytes, 1);
  const auto begun = Clock::now();
  const DaemonProcess daemon = site.start();
  const ReleaseAtEnd release(disk);
  disk.stall_reads(file.id);
  ClientProcess client = ClientProcess::start([&](const Reporter&) {
    Reporter::require(go_ahead(), "there is no time namespace");
    Reporter::require(Clock::now() - begun >= kAhead, "the clock is not ahead");
    check_what_is_heard(daemon.socket(), file, begun + kAhead);
  });
  CHECK(client.failure() == "");
}

TEST_CASE("a client whose clock is behind the daemon's hears how long the disk has been stuck",
          "[once][plain]") {
  if (const auto reason = missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 9}, 4 * kChunkBytes, 1);
  const auto begun = Clock::now();
  const lab::DaemonProcess daemon({.program = path_of_daemon(),
                                   .directory = site.directory(),
                                   .socket = site.socket(),
                                   .engine = engine_under_test(),
                                   .before_exec = go_ahead});
  const ReleaseAtEnd release(disk);
  disk.stall_reads(file.id);
  ClientProcess client =
      ClientProcess::start([&](const Reporter&) { check_what_is_heard(daemon.socket(), file, begun); });
  CHECK(client.failure() == "");
}

}  // namespace
}  // namespace nvr::test
