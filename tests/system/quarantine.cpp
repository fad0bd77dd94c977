// Reads that the disk still holds when nobody waits for them any more: whoever gave up is free at once, and
// the memory that the kernel may yet write to is nobody's until it has.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/support/client_process.h"
#include "tests/support/proc.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr ConnectOptions kSmall = {.streams = 1, .slots_per_stream = 8};
constexpr std::uint64_t kWindowBytes = 8 * kChunkBytes;

// Whether the engine's disk thread goes on while a read is stuck, so that it can tell what it holds back.
bool goes_on_while_stuck() {
  return engine_under_test() != "mmap";
}

std::size_t windows_mapped_by(pid_t pid) {
  std::size_t count = 0;
  for (const MapEntry& map : mappings_of(pid)) count += map.name.find("nvr-R") != std::string::npos ? 1 : 0;
  return count;
}

// A client of which a read is stuck.
ClientProcess start_stuck_client(SlowDisk& disk, const std::string& socket, const RecordingFile& file) {
  disk.stall_reads(file.id);
  ClientProcess client = ClientProcess::start([&](const Reporter& reporter) {
    Client connection = connect_to(socket, kSmall);
    const Stream stream = open_stream(connection, file);
    reporter.line("open");
    pause();
  });
  REQUIRE(client.next_line() == "open");
  return client;
}

TEST_CASE(
    "cancel of a stuck stream does not wait for the disk, and its slots are lent to nobody until the disk "
    "answers") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile stuck_file = make_recording(disk.backing(), {1, 1}, 20 * kChunkBytes, 1);
  const RecordingFile other_file = make_recording(disk.backing(), {1, 2}, 20 * kChunkBytes + 1, 2);
  const DaemonProcess daemon = site.start({"--device-kind", "solid"});
  const ReleaseAtEnd release_at_end(disk);
  Client client = connect_to(daemon, kSmall);
  disk.stall_reads(stuck_file.id);
  Stream stuck = open_stream(client, stuck_file);
  disk.wait_until_stuck(stuck_file.id);

  stuck.cancel();
  CHECK(code_of(stuck.next()) == Code::kCancelled);
  CHECK_FALSE(stuck.next().has_value());
  // The disk has not moved, and what it may write to is in no other stream's hands.
  CHECK(daemon.status().at("operations_in_flight") > 0);
  Stream next = open_stream(client, other_file);
  CHECK(code_of(next.next(in(std::chrono::milliseconds(200)))) == Code::kDeadlineExceeded);
  if (goes_on_while_stuck()) {
    std::uint64_t quarantined = 0;
    CHECK(wait_until([&] { return (quarantined = daemon.total("quarantined_bytes")) > 0; }));
    CHECK(quarantined <= kWindowBytes);
  }

  disk.release();
  CHECK(problem_reading(next, other_file, 0, other_file.size) == "");
  CHECK(daemon.wait_for_total("quarantined_bytes", 0));  // the stuck one may be the last to complete
  CHECK(problem_reading(client, stuck_file) == "");
}

TEST_CASE("the memory of a client that is killed with a stuck read stays until the disk answers") {
  if (geteuid() != 0) return skip_or_fail("looking at the daemon's memory maps needs root");
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile stuck_file = make_recording(disk.backing(), {1, 1}, 20 * kChunkBytes, 1);
  const RecordingFile other_file = make_recording(disk.backing(), {1, 2}, 20 * kChunkBytes + 1, 2);
  const DaemonProcess daemon = site.start({"--device-kind", "solid"});
  const ReleaseAtEnd release_at_end(disk);
  {
    Client warm_up = connect_to(daemon, kSmall);
    CHECK(problem_reading(warm_up, other_file) == "");
  }
  REQUIRE(daemon.wait_for_total("shared_bytes", 0));
  const Baseline baseline(daemon.pid());
  CHECK(windows_mapped_by(daemon.pid()) == 0);

  ClientProcess client = start_stuck_client(disk, daemon.socket(), stuck_file);
  disk.wait_until_stuck(stuck_file.id);
  const std::uint64_t shared_bytes = daemon.total("shared_bytes");
  CHECK(shared_bytes > kWindowBytes);
  client.signal(SIGKILL);
  client.reap();

  CHECK(daemon.wait_for_total("connections_now", 0));
  nlohmann::json totals;
  const auto shows_quarantine = [&] {
    totals = daemon.status().at("totals");
    return totals.at("quarantined_bytes") > 0;
  };
  if (goes_on_while_stuck()) {
    CHECK(wait_until(shows_quarantine));
    CHECK(totals.at("quarantined_bytes") <= kWindowBytes);
  } else {
    totals = daemon.status().at("totals");
  }
  CAPTURE(totals.dump(2));
  CHECK(totals.at("shared_bytes") == shared_bytes);
  CHECK(windows_mapped_by(daemon.pid()) == 1);
  if (goes_on_while_stuck()) {  // and nobody else is in its way
    Client other = connect_to(daemon, kSmall);
    CHECK(problem_reading(other, other_file) == "");
    CHECK(daemon.total("quarantined_bytes") > 0);
  }
  CHECK(daemon.status().at("operations_in_flight") > 0);

  disk.release();
  for (const char* const total : {"quarantined_bytes", "shared_bytes", "held_bytes", "streams_open"}) {
    CAPTURE(total);
    CHECK(daemon.wait_for_total(total, 0));
  }
  CHECK(daemon.status().at("connections").empty());
  CHECK(baseline.difference_after_waiting() == "");
  CHECK(windows_mapped_by(daemon.pid()) == 0);
}

TEST_CASE("clients that are killed with stuck reads one after the other are bounded like living ones") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  constexpr std::uint32_t kClients = 3;
  std::vector<RecordingFile> files;  // a file each: FUSE lets an open of a file wait for the reads of it
  for (std::uint32_t i = 0; i < kClients; ++i)
    files.push_back(make_recording(disk.backing(), {1, i}, 20 * kChunkBytes, i));
  const DaemonProcess daemon = site.start({"--max-clients", std::to_string(kClients)});
  const ReleaseAtEnd release_at_end(disk);
  for (std::uint32_t i = 0; i < kClients; ++i) {
    CAPTURE(i);
    ClientProcess client = start_stuck_client(disk, daemon.socket(), files[i]);
    if (i == 0 || goes_on_while_stuck()) disk.wait_until_stuck(files[i].id);
    client.signal(SIGKILL);
    client.reap();
    CHECK(daemon.wait_for_total("connections_now", 0));
  }
  const auto full = Client::connect(daemon.socket(), kSmall);
  REQUIRE_FALSE(full.has_value());
  CHECK(full.error().code == Code::kResourceExhausted);

  disk.release();
  CHECK(daemon.wait_for_total("shared_bytes", 0));
  CHECK(daemon.wait_for_total("quarantined_bytes", 0));
  Client client = connect_to(daemon, kSmall);
  for (const RecordingFile& file : files) CHECK(problem_reading(client, file) == "");
}

}  // namespace
}  // namespace nvr::test
