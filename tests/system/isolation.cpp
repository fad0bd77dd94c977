// One bad recording holds up no other: while its reads or its open hang, the others of the same daemon are
// read to their end. How fast they are is nvr-bench's to say.
#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint32_t kOthers = 15;
constexpr std::uint64_t kBytes = 2 << 20;  // of each recording

// A disk with one recording to get stuck, and others that are not to be held up by it.
struct Disk {
  Site site;
  SlowDisk disk{site.directory()};
  RecordingFile stuck_file = make_recording(disk.backing(), {1, 1}, kBytes, 1);
  std::vector<RecordingFile> others;
  std::optional<DaemonProcess> daemon;
  ReleaseAtEnd release_at_end{disk};
  std::optional<Client> client;

  explicit Disk(const std::string& device_kind) {
    for (std::uint32_t i = 0; i < kOthers; ++i)
      others.push_back(make_recording(disk.backing(), {2, i}, kBytes, test_seed() + i));
    daemon.emplace(site.start({"--device-kind", device_kind}));
    client.emplace(connect_to(*daemon, {.streams = kOthers + 1, .slots_per_stream = 8}));
  }
  // All of them side by side, from the disk.
  void read_the_others() {
    std::vector<Stream> streams;
    std::vector<ChunkChecker> checkers;
    for (const RecordingFile& file : others) {
      streams.push_back(open_stream(*client, file));
      checkers.emplace_back(file, 0, file.size);
    }
    for (bool any = true; std::exchange(any, false);) {
      for (std::size_t i = 0; i < streams.size(); ++i) {
        const auto next = streams[i].next(in(kLongEnough));
        if (!next) continue;
        REQUIRE(code_of(next) == Code::kOk);
        REQUIRE(checkers[i].accept(**next));
        any = true;
      }
    }
    for (const ChunkChecker& checker : checkers) REQUIRE(checker.is_complete());
  }
};

TEST_CASE("while the reads of one recording never complete the others are read to their end") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const std::string device_kind = GENERATE("solid", "rotational");
  CAPTURE(device_kind);
  Disk lab(device_kind);
  for (const bool is_cancelled : {true, false}) {
    CAPTURE(is_cancelled);
    lab.disk.stall_reads(lab.stuck_file.id);
    Stream stuck = open_stream(*lab.client, lab.stuck_file);
    lab.disk.wait_until_stuck(lab.stuck_file.id);
    lab.read_the_others();
    REQUIRE(wait_until([&] { return lab.client->disk_status().stuck; }));
    CHECK(lab.client->disk_status().recording == lab.stuck_file.id);
    CHECK(code_of(stuck.try_next()) == Code::kDeadlineExceeded);
    if (is_cancelled) stuck.cancel();  // returns though the disk does not
    CHECK(code_of(stuck.try_next()) == (is_cancelled ? Code::kCancelled : Code::kDeadlineExceeded));
    lab.disk.release();
    if (!is_cancelled) CHECK(problem_reading(stuck, lab.stuck_file, 0, lab.stuck_file.size) == "");
    stuck.close();
    REQUIRE(wait_until([&] { return lab.daemon->status().at("operations_in_flight") == 0; }));
  }
}

TEST_CASE("while the open of one recording hangs the others are read to their end") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  Disk lab("solid");
  lab.disk.stall_opens(lab.stuck_file.id);
  Stream stuck = open_stream(*lab.client, lab.stuck_file);
  lab.disk.wait_until_stuck(lab.stuck_file.id);
  lab.read_the_others();
  nlohmann::json stall;
  REQUIRE(wait_until([&] { return (stall = lab.daemon->status().at("stall")).at("stuck") == true; }));
  CHECK(stall.at("operation") == "open");
  CHECK(stall.at("recording") == "1/1");
  CHECK(code_of(stuck.try_next()) == Code::kDeadlineExceeded);
  lab.disk.release();
  CHECK(problem_reading(stuck, lab.stuck_file, 0, lab.stuck_file.size) == "");
}

// More of them than there may be operations on the disk at a time: what has been stuck for a while takes
// nobody's place there.
TEST_CASE("recordings whose reads never complete, however many, keep no other from the disk") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const auto [device_kind, stuck_count] =
      GENERATE(table<std::string, std::uint32_t>({{"solid", 40}, {"rotational", 8}}));
  CAPTURE(device_kind);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile healthy_file = make_recording(disk.backing(), {2, 1}, kBytes, 99);
  const DaemonProcess daemon = site.start({"--device-kind", device_kind});
  const ReleaseAtEnd release_at_end(disk);
  Client client = connect_to(daemon, {.streams = stuck_count + 1, .slots_per_stream = 4});
  std::vector<RecordingFile> stuck_files;
  std::vector<Stream> stuck;
  for (std::uint32_t i = 0; i < stuck_count; ++i) {
    stuck_files.push_back(make_recording(disk.backing(), {1, i}, kChunkBytes, i));
    disk.stall_reads(stuck_files.back().id);
    stuck.push_back(open_stream(client, stuck_files.back()));
    disk.wait_until_stuck(stuck_files.back().id);
  }
  CHECK(problem_reading(client, healthy_file) == "");  // at all: each of the others still hangs
  for (Stream& stream : stuck) CHECK(code_of(stream.try_next()) == Code::kDeadlineExceeded);
  disk.release();
  for (std::uint32_t i = 0; i < stuck_count; ++i)
    CHECK(problem_reading(stuck[i], stuck_files[i], 0, stuck_files[i].size) == "");
}

}  // namespace
}  // namespace nvr::test
