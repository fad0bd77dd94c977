// cancel() and close() from another thread, at every moment of a next().
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

TEST_CASE("cancel and close end a next that is blocked on a stuck disk") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  // A file each: FUSE lets an open of a file wait for the reads of it.
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < 16; ++i) {
    files.push_back(make_recording(disk.backing(), {1, i}, 10 * kChunkBytes, i));
    disk.stall_reads(files.back().id);
  }
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 16, .slots_per_stream = 2});
  std::vector<Stream> streams;
  for (const RecordingFile& file : files) streams.push_back(open_stream(client, file));
  std::atomic<int> blocking = 0;
  std::atomic<int> returned = 0;
  std::vector<Code> codes(streams.size());
  std::vector<int> ended(streams.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < streams.size(); ++i) {
    threads.emplace_back([&, i] {
      ++blocking;
      codes[i] = code_of(streams[i].next());
      ended[i] = !streams[i].next().has_value();
      ++returned;
    });
  }
  while (blocking < 16) std::this_thread::yield();
  REQUIRE(wait_until([&] {
    const DiskStatus disk_now = client.disk_status();
    return disk_now.stuck && !disk_now.opening;
  }));
  CHECK(returned == 0);
  for (std::size_t i = 0; i < streams.size(); ++i) i % 2 == 0 ? streams[i].cancel() : streams[i].close();
  for (std::thread& thread : threads) thread.join();
  CHECK(client.disk_status().stuck);  // the disk has not moved: nobody waited for it
  for (std::size_t i = 0; i < streams.size(); ++i) {
    CAPTURE(i);
    CHECK(codes[i] == (i % 2 == 0 ? Code::kCancelled : Code::kOk));
    CHECK(ended[i] == 1);
  }
  streams.clear();
  disk.release();
  for (const RecordingFile& file : files) CHECK(problem_reading(client, file) == "");
}

TEST_CASE("cancel and close at random moments from another thread") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 200 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  int cancelled_count = 0;
  for (int i = 0; i < scaled(400, 150); ++i) {
    CAPTURE(i);
    const bool by_cancel = i % 2 == 0;
    Stream stream = open_stream(client, file);
    const std::chrono::microseconds delay(pick(test_random(), 0, scaled(2'000, 10'000)));
    std::thread other([&] {
      std::this_thread::sleep_for(delay);
      by_cancel ? stream.cancel() : stream.close();
    });
    ChunkChecker checker(file, 0, file.size);
    const Outcome outcome = drain(stream, &checker);
    other.join();
    CHECK(outcome.problem == "");
    if (outcome.error) CHECK(outcome.error->code == (by_cancel ? Code::kCancelled : Code::kOk));
    cancelled_count += checker.is_complete() ? 0 : 1;
    CHECK((checker.is_complete() || !by_cancel || outcome.error.has_value()));
    // Once more is once too often for nobody.
    stream.cancel();
    stream.close();
    CHECK_FALSE(stream.next().has_value());
  }
  CHECK(cancelled_count > 0);
  CHECK(problem_reading(client, file) == "");
  CHECK(daemon.total("violations") == 0);
  CHECK(daemon.wait_for_total("streams_open", 0));
}

TEST_CASE("many threads share one client", "[once]") {
  const Site site;
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < 8; ++i) files.push_back(site.record({1, i}, 100'000 * (i + 1)));
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 8, .slots_per_stream = 4});
  std::vector<std::string> problems(8);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int turn = 0; turn < scaled(60, 20) && problems[i].empty(); ++turn) {
        problems[i] = problem_reading(client, files[(i + static_cast<std::size_t>(turn)) % 8]);
        const auto info = client.stat(files[i].id);
        if (info && info->size != files[i].size) problems[i] = "wrong size";
        if (!info && info.error().code != Code::kResourceExhausted) problems[i] = to_string(info.error());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& problem : problems) CHECK(problem == "");
}

}  // namespace
}  // namespace nvr::test
