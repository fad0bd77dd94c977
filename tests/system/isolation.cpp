// One bad recording holds up no other: what the other streams of the same daemon get while it is stuck,
// against what they get without it.
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint32_t kOthers = 15;
constexpr int kRounds = 5;
// Every read takes so long whatever else is going on, so that it is the disk, and not the processors, that
// limits the throughput: longer where many reads are on the disk at a time.
constexpr std::chrono::milliseconds kLatencyOfMany{scaled(40, 100)};
constexpr std::chrono::milliseconds kLatencyOfFew{40};
// Of the throughput without the stuck recording. One of two operations lost is half of it.
constexpr double kLeastShare = 0.9;
// After that an operation no longer takes the place of others (daemon::DiskService::kStuckMs).
constexpr std::chrono::milliseconds kUntilItCountsAsStuck{600};
constexpr std::uint64_t kBytes = 6 << 20;                // of each recording
constexpr std::uint64_t kFewBytes = 2 << 20;             // where few reads at a time make it long enough
constexpr std::chrono::seconds kNever{scaled(90, 200)};  // nothing came for so long: nothing ever will
constexpr std::uint64_t kLargestRequest = 1 << 20;       // that FUSE sends for a read

struct Others {
  std::vector<RecordingFile> files;

  // Reads all of them at a time, each by a thread of its own. The sum of the streams' bytes per second: each
  // over its own time, or the slowest, in whole latencies, would stand for all.
  [[nodiscard]] double read_all(Client& client, std::chrono::milliseconds latency) const {
    std::vector<std::string> problems(files.size());
    std::vector<std::chrono::duration<double>> times(files.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < files.size(); ++i) {
      threads.emplace_back([&, i] {
        const auto before = Clock::now();
        problems[i] = problem_reading_with_limit(client, files[i]);
        times[i] = Clock::now() - before;
      });
    }
    for (std::thread& thread : threads) thread.join();
    double sum = 0;
    for (std::size_t i = 0; i < files.size(); ++i) {
      REQUIRE(problems[i] == "");
      // It was the disk that was measured.
      REQUIRE(times[i] > latency * (files[i].size / kLargestRequest) / 2);
      sum += static_cast<double>(files[i].size) / times[i].count();
    }
    return sum;
  }

 private:
  // As problem_reading(), but gives up when nothing comes for long, and can be called by any thread.
  static std::string problem_reading_with_limit(Client& client, const RecordingFile& file) {
    auto stream = client.open({.recording = file.id});
    if (!stream) return to_string(stream.error());
    ChunkChecker checker(file, 0, file.size);
    while (auto chunk = stream->next(in(kNever))) {
      if (!*chunk) return to_string(chunk->error());
      if (!checker.accept(**chunk)) return checker.problem();
    }
    return checker.is_complete() ? "" : "ended too early";
  }
};

// The same content under as many names as there are passes: to FUSE that many files. So no pass finds
// anything in memory, and none of them is one that is read again and again.
std::vector<Others> make_passes(const SlowDisk& disk, int count, std::uint64_t bytes = kBytes) {
  std::vector<Others> passes(static_cast<std::size_t>(count));
  for (std::uint32_t pass = 0; pass < passes.size(); ++pass) {
    for (std::uint32_t i = 0; i < kOthers; ++i) {
      const RecordingId id = {2 + pass, i};
      if (pass == 0) {
        passes[0].files.push_back(make_recording(disk.backing(), id, bytes, test_seed() + i));
        continue;
      }
      RecordingFile file = passes[0].files[i];
      const std::string path = disk.backing() + "/" + file_name_of(id);
      if (link(file.path.c_str(), path.c_str()) != 0) throw TestFailure("cannot link " + path);
      file.id = id;
      file.path = path;
      passes[pass].files.push_back(std::move(file));
    }
  }
  return passes;
}

// `arguments` of the daemon; `rounds` of each kind; `latency` of each read of the disk; `bytes` of each
// recording.
void measure_isolation(std::vector<std::string> arguments, int rounds, std::chrono::milliseconds latency,
                       std::uint64_t bytes) {
  const Site site;
  SlowDisk disk(site.directory());
  const std::vector<Others> passes = make_passes(disk, 1 + 2 * rounds, bytes);
  auto others = passes.begin();
  const RecordingFile stuck_file = make_recording(disk.backing(), {1, 1}, bytes, 1);
  const DaemonProcess daemon = site.start(std::move(arguments));
  const ReleaseAtEnd release_at_end(disk);
  Client client = connect_to(daemon, {.streams = kOthers + 1, .slots_per_stream = 32});
  disk.set_read_latency(latency);
  static_cast<void>(others++->read_all(client, latency));  // a first pass over fresh memory

  std::vector<double> shares;
  for (int round = 0; round < rounds; ++round) {
    CAPTURE(round);
    const double without = others++->read_all(client, latency);

    disk.stall_reads(stuck_file.id);
    Stream stuck = open_stream(client, stuck_file);
    disk.wait_until_stuck(stuck_file.id);
    REQUIRE(wait_until([&] { return client.disk_status().stuck; }));
    std::this_thread::sleep_for(kUntilItCountsAsStuck);
    const double with = others++->read_all(client, latency);
    shares.push_back(with / without);
    CHECK(code_of(stuck.try_next()) == Code::kDeadlineExceeded);
    CHECK(client.disk_status().stuck);
    CHECK(client.disk_status().recording == stuck_file.id);
    if (round % 2 == 0) stuck.cancel();  // returns though the disk does not
    CHECK(code_of(stuck.try_next()) == (round % 2 == 0 ? Code::kCancelled : Code::kDeadlineExceeded));
    disk.release();
    if (round % 2 != 0) CHECK(problem_reading(stuck, stuck_file, 0, stuck_file.size) == "");
    stuck.close();
    REQUIRE(wait_until([&] { return daemon.status().at("operations_in_flight") == 0; }));
  }
  CAPTURE(shares);
  // What the stuck recording costs, it costs in every round; what the machine does meanwhile, in some.
  CHECK(std::ranges::max(shares) >= kLeastShare);
}

TEST_CASE("a recording whose reads never complete leaves the other streams 90 percent of their throughput",
          "[rates]") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  measure_isolation({"--device-kind", "solid"}, kRounds, kLatencyOfMany, kBytes);
}

TEST_CASE("so it does where few operations are on the disk at a time", "[rates]") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  measure_isolation({"--device-kind", "rotational"}, 3, kLatencyOfFew, kFewBytes);
}

TEST_CASE("a recording whose open hangs delays no other recording") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const std::vector<Others> passes = make_passes(disk, 2);
  const RecordingFile stuck_file = make_recording(disk.backing(), {1, 1}, kBytes, 1);
  const DaemonProcess daemon = site.start();
  const ReleaseAtEnd release_at_end(disk);
  Client client = connect_to(daemon, {.streams = kOthers + 1, .slots_per_stream = 32});
  disk.set_read_latency(kLatencyOfMany);
  disk.stall_opens(stuck_file.id);
  Stream stuck = open_stream(client, stuck_file);
  disk.wait_until_stuck(stuck_file.id);

  // That they end is the point: the open still hangs.
  for (const Others& others : passes) static_cast<void>(others.read_all(client, kLatencyOfMany));
  const auto stall = daemon.status().at("stall");
  CHECK(stall.at("stuck") == true);
  CHECK(stall.at("operation") == "open");
  CHECK(stall.at("recording") == "1/1");
  CHECK(code_of(stuck.try_next()) == Code::kDeadlineExceeded);

  disk.release();
  CHECK(problem_reading(stuck, stuck_file, 0, stuck_file.size) == "");
}

TEST_CASE("forty recordings whose reads never complete keep no other from the disk") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  constexpr std::uint32_t kStuck = 40;
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile healthy_file = make_recording(disk.backing(), {2, 1}, kFewBytes, 99);
  const DaemonProcess daemon = site.start({"--device-kind", "solid"});
  const ReleaseAtEnd release_at_end(disk);
  Client client = connect_to(daemon, {.streams = kStuck + 1, .slots_per_stream = 4});
  std::vector<RecordingFile> stuck_files;
  std::vector<Stream> stuck;
  for (std::uint32_t i = 0; i < kStuck; ++i) {
    stuck_files.push_back(make_recording(disk.backing(), {1, i}, kChunkBytes, i));
    disk.stall_reads(stuck_files.back().id);
    stuck.push_back(open_stream(client, stuck_files.back()));
    disk.wait_until_stuck(stuck_files.back().id);
  }
  CHECK(problem_reading(client, healthy_file) == "");  // at all: each of the others still hangs
  for (Stream& stream : stuck) CHECK(code_of(stream.try_next()) == Code::kDeadlineExceeded);
  disk.release();
  for (std::uint32_t i = 0; i < kStuck; ++i)
    CHECK(problem_reading(stuck[i], stuck_files[i], 0, stuck_files[i].size) == "");
}

}  // namespace
}  // namespace nvr::test
