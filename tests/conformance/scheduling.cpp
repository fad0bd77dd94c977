// C16 to C22: who is read for, and what cancel, close and drop do.
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <climits>
#include <nlohmann/json.hpp>
#include <optional>

#include "tests/support/proc.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint64_t kChunk = kChunkBytes;

// Tells whether a file was opened by anybody since this object was made.
class OpenWatch {
 public:
  explicit OpenWatch(const std::string& path) : fd_(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (!fd_ || inotify_add_watch(fd_.get(), path.c_str(), IN_OPEN) < 0)
      throw TestFailure("cannot watch " + path);
  }
  [[nodiscard]] bool saw_open() const {
    alignas(inotify_event) std::array<char, sizeof(inotify_event) + NAME_MAX + 1> event;
    return read(fd_.get(), event.data(), event.size()) > 0;
  }

 private:
  shm::UniqueFd fd_;
};

// Takes a chunk, if one is there. False once the stream has ended.
bool take_one(Stream& stream, ChunkChecker& checker) {
  const auto next = stream.try_next();
  if (!next) return false;
  if (*next)
    REQUIRE(checker.accept(**next));
  else
    REQUIRE(code_of(next) == Code::kDeadlineExceeded);
  return true;
}

TEST_CASE("C16 never more chunks in flight than the window") {
  const Site site;
  const RecordingFile idle_file = site.record({1, 1}, 100 * kChunk);
  const RecordingFile busy_file = site.record({1, 2}, 50 * kChunk);
  const DaemonProcess daemon = site.start();
  for (const std::uint32_t window : {2u, 8u, 64u}) {
    CAPTURE(window);
    const std::uint64_t before = daemon.total("chunks");
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = window});
    Stream idle = open_stream(client, idle_file);  // its client does not read it
    REQUIRE(daemon.wait_for_total("chunks", before + window));
    for (int i = 0; i < 5; ++i) CHECK(problem_reading(client, busy_file) == "");  // the others go on
    CHECK(daemon.total("chunks") == before + window + 5 * 50);
    const auto one = idle.next();
    REQUIRE(code_of(one) == Code::kOk);
    // Held, it is a slot less; only what has been dropped comes back.
    CHECK(problem_reading(client, busy_file) == "");
    CHECK(daemon.total("chunks") == before + window + 6 * 50);
  }
}

TEST_CASE("C16 a client that stops reading stops only its own streams") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 200 * kChunk);
  const DaemonProcess daemon = site.start();
  Client lazy = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
  Client eager = connect_to(daemon, {.streams = 1, .slots_per_stream = 4});
  std::vector<Stream> unread;
  for (int i = 0; i < 4; ++i) unread.push_back(open_stream(lazy, file));
  CHECK(problem_reading(eager, file) == "");
  for (Stream& stream : unread) CHECK(problem_reading(stream, file, 0, file.size) == "");
}

TEST_CASE("C17 streams interleave fairly") {
  const Site site;
  constexpr std::size_t kStreams = 6;
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < kStreams; ++i) files.push_back(site.record({1, i}, 300 * kChunk));
  const DaemonProcess daemon = site.start();
  Client one = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
  Client two = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
  std::vector<Stream> streams;
  std::vector<ChunkChecker> checkers;
  for (std::size_t i = 0; i < kStreams; ++i) {
    streams.push_back(open_stream(i % 2 == 0 ? one : two, files[i]));
    checkers.emplace_back(files[i], 0, files[i].size);
  }
  bool all_go_on = true;
  while (all_go_on) {
    for (std::size_t i = 0; i < kStreams; ++i) all_go_on &= take_one(streams[i], checkers[i]);
  }
  for (const ChunkChecker& checker : checkers) {
    CAPTURE(checker.next_offset());
    CHECK(checker.problem() == "");
    CHECK(checker.next_offset() >= 60 * kChunk);  // a fifth, when the first one has everything
  }
}

TEST_CASE("C17 daemons of different directories are independent", "[once]") {
  const Site slow;
  const Site fast;
  const RecordingFile waiting = slow.record({1, 1}, 100 * kChunk);
  const RecordingFile flowing = fast.record({1, 1}, 100 * kChunk);
  const DaemonProcess stopped = slow.start();
  const DaemonProcess running = fast.start();
  Client stuck = connect_to(stopped, {.streams = 1, .slots_per_stream = 2});
  Client fine = connect_to(running, {.streams = 1, .slots_per_stream = 2});
  Stream stream = open_stream(stuck, waiting);
  stopped.stop();
  for (int i = 0; i < 3; ++i) CHECK(problem_reading(fine, flowing) == "");
  stopped.go_on();
  static_cast<void>(drain(stream));  // whole, or Unavailable where the stop took too long
  Client again = connect_to(stopped);
  CHECK(problem_reading(again, waiting) == "");
}

TEST_CASE("C18 an open cancelled while queued is skipped") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const unsigned depth = engine_depth();
  std::vector<RecordingFile> stuck_files;
  for (std::uint32_t i = 0; i < depth; ++i) {
    stuck_files.push_back(make_recording(disk.backing(), {1, i}, 4 * kChunk, i));
    disk.stall_reads({1, i});
  }
  const RecordingFile skipped = make_recording(disk.backing(), {2, 1}, 4 * kChunk, 99);
  const RecordingFile after = make_recording(disk.backing(), {2, 2}, 4 * kChunk, 98);
  const DaemonProcess daemon = site.start({"--io-depth", "64"});
  Client client = connect_to(daemon, {.streams = depth + 2, .slots_per_stream = 2});
  std::vector<Stream> stuck;
  for (const RecordingFile& file : stuck_files) {
    stuck.push_back(open_stream(client, file));
    disk.wait_until_stuck(file.id);  // an open that is still to end would make room
  }
  REQUIRE(wait_until([&] { return daemon.status().at("operations_in_flight") == depth; }));
  REQUIRE(wait_until([&] { return client.disk_status().stuck; }));

  const OpenWatch watch(site.directory() + "/" + file_name_of(skipped.id));
  Stream cancelled = open_stream(client, skipped);
  Stream queued = open_stream(client, after);
  cancelled.cancel();
  CHECK(code_of(cancelled.next()) == Code::kCancelled);
  CHECK(code_of(queued.try_next()) == Code::kDeadlineExceeded);
  disk.release();
  CHECK(problem_reading(queued, after, 0, after.size) == "");
  for (std::size_t i = 0; i < stuck.size(); ++i)
    CHECK(problem_reading(stuck[i], stuck_files[i], 0, stuck_files[i].size) == "");
  CHECK_FALSE(watch.saw_open());
  CHECK(daemon.log().find(to_string(skipped.id)) == std::string::npos);
  CHECK(problem_reading(client, skipped) == "");
  CHECK(watch.saw_open());
}

TEST_CASE("C19 cancelling during an operation does not wait for it and its result is discarded") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile stuck_file = make_recording(disk.backing(), {1, 1}, 10 * kChunk, 1);
  const RecordingFile other_file = make_recording(disk.backing(), {1, 2}, 10 * kChunk, 2);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  for (const bool by_drop : {false, true}) {
    for (const bool in_open : {false, true}) {
      CAPTURE(by_drop, in_open);
      if (in_open)
        disk.stall_opens(stuck_file.id);
      else
        disk.stall_reads(stuck_file.id);
      {
        Stream stream = open_stream(client, stuck_file);
        REQUIRE(wait_until([&] {  // a slow open may show before the read that is stuck
          const DiskStatus disk_now = client.disk_status();
          return disk_now.stuck && disk_now.opening == in_open;
        }));
        CHECK(client.disk_status().recording == stuck_file.id);
        if (!by_drop) {
          stream.cancel();
          CHECK(code_of(stream.next()) == Code::kCancelled);
          CHECK_FALSE(stream.next().has_value());
        }
      }
      CHECK(client.disk_status().stuck);  // all that did not wait for the disk
      // An asynchronous engine has the stream's next read queued behind the stuck one.
      const auto in_flight = daemon.status().at("operations_in_flight").get<unsigned>();
      CHECK(in_flight >= 1);
      CHECK(in_flight <= std::min(engine_depth(), 2U));
      disk.release();
      // The channel is free again once the operation has ended, and nothing of its result shows up.
      CHECK(problem_reading(client, other_file) == "");
      CHECK(daemon.wait_for_total("quarantined_bytes", 0));
      CHECK(wait_until([&] { return !client.disk_status().stuck; }));
    }
  }
  CHECK(daemon.total("errors") == 0);
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("C20 dropping a stream at any point closes it") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 12 * kChunk + 100);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  CHECK(problem_reading(client, file) == "");
  for (int i = 0; i < scaled(300, 100); ++i) {
    CAPTURE(i);
    const std::uint64_t begin = pick(test_random(), 0, file.size - 1);
    Stream stream = open_stream(client, file, begin, file.size);
    ChunkChecker checker(file, begin, file.size);
    for (std::uint64_t taken = pick(test_random(), 0, 13); taken > 0; --taken) {
      const auto chunk = stream.next();
      if (!chunk) break;
      REQUIRE(code_of(chunk) == Code::kOk);
      REQUIRE(checker.accept(**chunk));
    }
    // A client has nothing of a sample file to unmap or to close.
    if (i % 50 == 0) {
      CHECK(mappings_beneath(getpid(), site.directory()) == 0);
      CHECK(descriptors_beneath(getpid(), site.directory()) == 0);
    }
  }
  CHECK(daemon.wait_for_total("streams_open", 0));
  CHECK(wait_until([&] { return mappings_beneath(daemon.pid(), site.directory()) == 0; }));
  CHECK(wait_until([&] { return descriptors_beneath(daemon.pid(), site.directory()) == 0; }));
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("C21 chunks outlive their stream and their client and the daemon") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunk);
  DaemonProcess daemon = site.start();
  std::vector<Chunk> held;
  const auto hold_some = [&](Stream& stream, int count) {
    for (int i = 0; i < count; ++i) {
      auto chunk = stream.next();
      REQUIRE(code_of(chunk) == Code::kOk);
      held.push_back(std::move(**chunk));
    }
  };
  const auto all_are_intact = [&] {
    return std::ranges::all_of(
        held, [&](const Chunk& chunk) { return file.difference(chunk.offset(), chunk.bytes()).empty(); });
  };
  {
    Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 8});
    {
      Stream stream = open_stream(client, file);
      hold_some(stream, 3);
    }
    CHECK(all_are_intact());
    {
      Stream stream = open_stream(client, file, 5 * kChunk);
      hold_some(stream, 4);
    }
    CHECK(problem_reading(client, file) == "");  // through the slot that is left
    CHECK(all_are_intact());
  }
  CHECK(all_are_intact());
  {
    Client client = connect_to(daemon);
    CHECK(problem_reading(client, file) == "");
  }
  CHECK(all_are_intact());
  daemon.kill();
  CHECK(all_are_intact());
  CHECK(held.size() == 7);
}

TEST_CASE("C22 threads are named so that they can be told apart") {
  const Site site("camera-disk-number-one");
  const DaemonProcess daemon = site.start();
  const auto threads = threads_of(daemon.pid());
  REQUIRE_FALSE(threads.empty());
  CHECK(std::ranges::count(threads, "r-camera-disk-n") == 1);
  if (!kSanitized)
    CHECK(std::ranges::count(threads, threads.front()) == 1);  // TSan's thread has the same name
  CHECK_FALSE(threads.front().starts_with("r-"));

  const Site other("disk2");
  DaemonOptions options = other.options();
  options.directory += "/";
  const DaemonProcess second(options);
  CHECK(std::ranges::count(threads_of(second.pid()), "r-disk2") == 1);
}

}  // namespace
}  // namespace nvr::test
