// Playlists: many slices of many recordings as one stream of bytes.
#include "nvr/playlist.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

// Recordings, slices of them, and so the bytes that a playlist of these must give.
struct Programme {
  std::vector<RecordingFile> files;  // of slice i
  std::vector<Slice> slices;
  std::vector<std::byte> bytes;

  void add(const RecordingFile& file, std::uint64_t begin, std::uint64_t end) {
    files.push_back(file);
    slices.push_back({.recording = file.id, .begin = begin, .end = end});
    const auto content = file.bytes(begin, end);
    bytes.insert(bytes.end(), content.begin(), content.end());
  }
  void add(const RecordingFile& file) { add(file, 0, file.size); }

  // Is this chunk what lies at `position`, and of one slice only?
  [[nodiscard]] bool holds(const Chunk& chunk, std::uint64_t position) const {
    const auto found = chunk.bytes();
    return found.size() <= bytes.size() - position &&
           std::equal(found.begin(), found.end(), bytes.begin() + static_cast<std::ptrdiff_t>(position));
  }
};

Playlist open_playlist(Client& client, const Programme& programme, PlaylistOptions options = {}) {
  auto playlist = Playlist::open(client, programme.slices, options);
  if (!playlist) throw TestFailure(to_string(playlist.error()));
  return std::move(*playlist);
}

// Takes up to `most` chunks. What was wrong, or the error that came; empty if nothing.
std::string problem_taking(Playlist& playlist, const Programme& programme, std::uint64_t most = UINT64_MAX) {
  for (std::uint64_t i = 0; i < most; ++i) {
    const std::uint64_t position = playlist.position();
    const auto next = playlist.next();
    if (!next) return playlist.position() == programme.bytes.size() ? "" : "it ended before its end";
    if (!*next) return to_string(next->error());
    if (!programme.holds(**next, position)) return "wrong bytes at " + std::to_string(position);
    if (playlist.position() != position + (*next)->bytes().size()) return "it lost its position";
  }
  return {};
}

Programme random_programme(const Site& site, std::uint32_t camera, std::uint32_t recordings,
                           std::uint32_t slices) {
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < recordings; ++i)
    files.push_back(site.record({camera, i}, pick(test_random(), 1, 6 * kChunkBytes)));
  Programme programme;
  for (std::uint32_t i = 0; i < slices; ++i) {
    const RecordingFile& file = files[pick(test_random(), 0, files.size() - 1)];
    const std::uint64_t begin = pick(test_random(), 0, file.size);
    programme.add(file, begin,
                  pick(test_random(), 0, 3) == 0 ? begin : pick(test_random(), begin, file.size));
  }
  return programme;
}

TEST_CASE("a playlist delivers exactly its slices, from its start and from wherever it is sought to") {
  const Site site;
  const DaemonProcess daemon = site.start();
  for (std::uint32_t turn = 0; turn < scaled(6U, 3U); ++turn) {
    const Programme programme = random_programme(site, turn, 10, 40);
    // Two streams are enough for it; small windows make them wait for each other.
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
    Playlist playlist =
        open_playlist(client, programme, {.open_ahead_bytes = pick(test_random(), 0, 300'000)});
    REQUIRE(playlist.size() == programme.bytes.size());
    CHECK(problem_taking(playlist, programme) == "");
    CHECK(playlist.slice() == programme.slices.size());
    CHECK_FALSE(playlist.next().has_value());
    for (int i = 0; i < scaled(150, 40); ++i) {
      const std::uint64_t offset = pick(test_random(), 0, playlist.size());
      CAPTURE(turn, i, offset);
      REQUIRE(playlist.seek(offset).has_value());
      REQUIRE(playlist.position() == offset);
      REQUIRE(problem_taking(playlist, programme, pick(test_random(), 0, 12)) == "");
    }
    REQUIRE(playlist.seek(0).has_value());
    CHECK(problem_taking(playlist, programme) == "");
    CHECK(playlist.seek(playlist.size() + 1).error().code == Code::kOutOfRange);
  }
  CHECK(daemon.total("violations") == 0);
  CHECK(daemon.wait_for_total("streams_open", 0));
}

TEST_CASE("a playlist can be looped over, and outlives its client and itself in its chunks", "[once]") {
  const Site site;
  Programme programme;
  programme.add(site.record({1, 1}, 3 * kChunkBytes + 5), 100, 2 * kChunkBytes);
  programme.add(site.record({1, 2}, 10));
  const DaemonProcess daemon = site.start();
  std::vector<Chunk> kept;
  {
    auto client = std::make_unique<Client>(connect_to(daemon));
    Playlist playlist = open_playlist(*client, programme);
    client.reset();
    for (auto& chunk : playlist) {
      REQUIRE(chunk.has_value());
      kept.push_back(std::move(*chunk));
    }
  }
  std::uint64_t position = 0;
  for (const Chunk& chunk : kept) {
    CHECK(programme.holds(chunk, position));
    position += chunk.bytes().size();
  }
  CHECK(position == programme.bytes.size());
}

TEST_CASE("the next slice is opened before the joint, and not before its end is near", "[once]") {
  const Site site;
  Programme programme;
  for (std::uint32_t i = 0; i < 3; ++i) programme.add(site.record({1, i}, 40 * kChunkBytes));
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  Playlist playlist = open_playlist(client, programme, {.open_ahead_bytes = 8 * kChunkBytes});
  REQUIRE(problem_taking(playlist, programme, 32) == "");
  CHECK(daemon.total("opens") == 1);
  REQUIRE(problem_taking(playlist, programme, 1) == "");
  REQUIRE(daemon.wait_for_total("opens", 2));
  // Its first chunks are there as well, while the first slice has not been delivered.
  REQUIRE(daemon.wait_for_total("chunks", 33 + 4 + 4));
  CHECK(playlist.slice() == 0);
  REQUIRE(problem_taking(playlist, programme, 7) == "");
  CHECK(problem_taking(playlist, programme, 32) == "");
  CHECK(daemon.total("opens") == 2);
  CHECK(problem_taking(playlist, programme) == "");
  CHECK(daemon.total("opens") == 3);
}

TEST_CASE("a slice that the disk does not give holds up nothing before it, and a seek leaves it") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  Programme programme;
  for (std::uint32_t i = 0; i < 3; ++i)
    programme.add(make_recording(disk.backing(), {1, i}, 10 * kChunkBytes, i));
  disk.stall_reads(programme.files[1].id);
  const DaemonProcess daemon = site.start();
  const ReleaseAtEnd release(disk);
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 16});
  Playlist playlist = open_playlist(client, programme);
  // mmap has one thread for the disk: what it has not read by now it will not.
  REQUIRE(daemon.wait_for_total("chunks", 10));
  REQUIRE(problem_taking(playlist, programme, 1) == "");
  disk.wait_until_stuck(programme.files[1].id);  // the next slice has been asked for
  REQUIRE(problem_taking(playlist, programme, 9) == "");
  const auto late = playlist.next(in(std::chrono::milliseconds(20)));
  REQUIRE(code_of(late) == Code::kDeadlineExceeded);
  CHECK_THAT(late->error().message, Catch::Contains("slice 2 of 3: "));
  CHECK(playlist.slice() == 1);
  CHECK(code_of(playlist.try_next()) == Code::kDeadlineExceeded);
  if (engine_under_test() == "io_uring") {
    REQUIRE(playlist.seek(20 * kChunkBytes).has_value());
    CHECK(problem_taking(playlist, programme) == "");
    CHECK(wait_until([&] { return client.disk_status().stuck; }));
  }
  REQUIRE(playlist.seek(10 * kChunkBytes + 7).has_value());
  CHECK(code_of(playlist.next(in(std::chrono::milliseconds(20)))) == Code::kDeadlineExceeded);
  disk.release();
  CHECK(problem_taking(playlist, programme) == "");
}

TEST_CASE(
    "an error in one slice comes behind the bytes before it, names the slice, and can be stepped over") {
  const Site site;
  Programme programme;
  programme.add(site.record({1, 1}, 2 * kChunkBytes + 3));
  RecordingFile missing{.id = {1, 2}, .path = "", .size = kChunkBytes, .seed = 2};
  programme.add(missing);
  programme.add(site.record({1, 3}, 5000));
  const RecordingFile shorter = site.record({1, 4}, 100);
  programme.add({.id = shorter.id, .path = shorter.path, .size = 200, .seed = shorter.seed}, 0, 200);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  Playlist playlist = open_playlist(client, programme);
  REQUIRE(problem_taking(playlist, programme, 3) == "");
  const auto failed = playlist.next();
  REQUIRE(code_of(failed) == Code::kNotFound);
  CHECK_THAT(failed->error().message, Catch::Contains("slice 2 of 4: ") && Catch::Contains("1/2"));
  CHECK(playlist.slice() == 1);
  CHECK(playlist.position() == programme.files[0].size);
  CHECK_FALSE(playlist.next().has_value());
  CHECK_FALSE(playlist.try_next().has_value());
  REQUIRE(playlist.seek(programme.files[0].size + kChunkBytes).has_value());
  REQUIRE(problem_taking(playlist, programme, 1) == "");
  const auto short_slice = playlist.next();
  REQUIRE(code_of(short_slice) == Code::kOutOfRange);
  CHECK_THAT(short_slice->error().message, Catch::Contains("slice 4 of 4: "));
  REQUIRE(playlist.seek(0).has_value());
  CHECK(problem_taking(playlist, programme, 3) == "");
}

TEST_CASE("a playlist names the slice that it reads, past empty ones") {
  const Site site;
  Programme programme;
  const RecordingFile file = site.record({1, 1}, 2 * kChunkBytes);
  programme.add(file);
  for (int i = 0; i < 2; ++i) programme.add(file, 7, 7);
  programme.add(file, 5, file.size);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  Playlist playlist = open_playlist(client, programme);
  std::vector<std::size_t> slices;
  for (auto& chunk : playlist) {
    REQUIRE(chunk.has_value());
    slices.push_back(playlist.slice());
  }
  CHECK(slices == std::vector<std::size_t>{0, 0, 3, 3});
}

TEST_CASE("a playlist that failed keeps no stream open") {
  const Site site;
  Programme programme;
  programme.add({.id = {1, 2}, .path = "", .size = kChunkBytes, .seed = 2});  // there is none
  programme.add(site.record({1, 1}, 20 * kChunkBytes));
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  daemon.stop();
  Playlist playlist = open_playlist(client, programme);
  CHECK(code_of(playlist.try_next()) == Code::kDeadlineExceeded);
  daemon.go_on();
  REQUIRE(daemon.wait_for_total("opens", 2));  // it looked ahead
  CHECK(code_of(playlist.next()) == Code::kNotFound);
  CHECK(daemon.wait_for_total("streams_open", 0));
}

TEST_CASE("slices that are none are refused by name, and a playlist of nothing is at its end", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  const auto backwards = Playlist::open(client, {{{1, 1}, 0, 5}, {{1, 2}, 6, 5}});
  REQUIRE_FALSE(backwards.has_value());
  CHECK(backwards.error().code == Code::kInvalidArgument);
  CHECK_THAT(backwards.error().message, Catch::Contains("slice 2 of 2") && Catch::Contains("6-5"));
  const auto long_one = static_cast<std::uint64_t>(INT64_MAX);
  CHECK(Playlist::open(client, {{{1, 1}, 0, kToEnd}}).error().code == Code::kInvalidArgument);
  CHECK(Playlist::open(client, {{{1, 1}, 0, long_one}, {{1, 1}, 0, 1}}).error().code ==
        Code::kInvalidArgument);
  for (std::vector<Slice> slices : {std::vector<Slice>(), std::vector<Slice>(3, {{1, 1}, 7, 7})}) {
    auto playlist = Playlist::open(client, std::move(slices));
    REQUIRE(playlist.has_value());
    CHECK(playlist->size() == 0);
    CHECK_FALSE(playlist->next().has_value());
    CHECK(playlist->seek(0).has_value());
    CHECK_FALSE(playlist->next().has_value());
  }
  CHECK(daemon.total("opens") == 0);
}

TEST_CASE("a playlist waits for a stream of its connection when others have them all", "[once]") {
  const Site site;
  Programme programme;
  programme.add(site.record({1, 1}, kChunkBytes));
  programme.add(site.record({1, 2}, kChunkBytes));
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  std::optional<Stream> other = open_stream(client, programme.files[0]);
  Playlist playlist = open_playlist(client, programme);
  CHECK(code_of(playlist.next()) == Code::kResourceExhausted);
  CHECK(playlist.slice() == 0);
  other.reset();
  CHECK(problem_taking(playlist, programme) == "");  // with one stream: without looking ahead
}

TEST_CASE("cancel and close end a playlist that is blocked on a stuck disk", "[once]") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  Programme programme;
  for (std::uint32_t i = 0; i < 2; ++i)
    programme.add(make_recording(disk.backing(), {1, i}, 3 * kChunkBytes, i));
  disk.stall_reads(programme.files[1].id);
  const DaemonProcess daemon = site.start();
  const ReleaseAtEnd release(disk);
  Client client = connect_to(daemon);
  for (const bool by_cancel : {true, false}) {
    Playlist playlist = open_playlist(client, programme);
    // mmap's one thread may be in the second slice already, with the first one unread.
    std::atomic<bool> is_blocking = false;
    Code code = Code::kUnknown;
    std::thread reader([&] {
      is_blocking = true;
      do {
        const auto next = playlist.next();
        code = code_of(next);
        if (!next || !*next) break;
      } while (true);
    });
    CHECK(wait_until([&] { return is_blocking && client.disk_status().stuck; }));
    by_cancel ? playlist.cancel() : playlist.close();
    reader.join();
    CHECK(client.disk_status().stuck);
    CHECK(code == (by_cancel ? Code::kCancelled : Code::kOk));
    CHECK_FALSE(playlist.next().has_value());
    CHECK(playlist.seek(0).error().code == Code::kFailedPrecondition);
  }
}

TEST_CASE("cancel and close of a playlist at random moments from another thread", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  const Programme programme = random_programme(site, 1, 10, 40);
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 2});
  int cut_short = 0;
  for (int i = 0; i < scaled(300, 80); ++i) {
    CAPTURE(i);
    const bool by_cancel = i % 2 == 0;
    Playlist playlist = open_playlist(client, programme);
    const std::chrono::microseconds delay(pick(test_random(), 0, scaled(2'000, 10'000)));
    std::thread other([&] {
      std::this_thread::sleep_for(delay);
      by_cancel ? playlist.cancel() : playlist.close();
    });
    Code code = Code::kOk;
    std::string problem;
    for (;;) {
      const std::uint64_t position = playlist.position();
      const auto next = playlist.next();
      code = code_of(next);
      if (code == Code::kResourceExhausted) continue;  // those cancelled before are still being let go of
      if (!next || !*next) break;
      if (!programme.holds(**next, position)) problem = "wrong bytes";
    }
    other.join();
    const bool is_complete = playlist.position() == programme.bytes.size();
    cut_short += is_complete ? 0 : 1;
    CHECK(problem == "");
    if (code != Code::kOk) CHECK((by_cancel && code == Code::kCancelled));
    if (code == Code::kOk) CHECK((is_complete || !by_cancel));
    CHECK_FALSE(playlist.next().has_value());
  }
  CHECK(cut_short > 0);
  CHECK(daemon.total("violations") == 0);
  CHECK(daemon.wait_for_total("streams_open", 0));
}

TEST_CASE("an event loop reads many playlists through one descriptor", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 16, .slots_per_stream = 2});
  std::vector<Programme> programmes;
  std::vector<Playlist> playlists;
  for (std::uint32_t i = 0; i < 8; ++i) programmes.push_back(random_programme(site, i, 10, 20));
  REQUIRE(client.dispatch().has_value());
  for (const Programme& programme : programmes) playlists.push_back(open_playlist(client, programme));
  std::vector<bool> has_ended(playlists.size());
  const auto take_all = [&](std::size_t i) {
    while (!has_ended[i]) {
      const std::uint64_t position = playlists[i].position();
      const auto next = playlists[i].try_next();
      if (code_of(next) == Code::kDeadlineExceeded) return;
      has_ended[i] = !next;
      if (!next) return;
      REQUIRE(next->has_value());
      REQUIRE(programmes[i].holds(**next, position));
    }
  };
  for (;;) {
    for (std::size_t i = 0; i < playlists.size(); ++i) take_all(i);
    if (std::count(has_ended.begin(), has_ended.end(), false) == 0) break;
    pollfd entry = {.fd = client.native_handle(), .events = POLLIN, .revents = 0};
    REQUIRE(poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(kLongEnough).count())) == 1);
    REQUIRE(client.dispatch().has_value());
  }
  for (std::size_t i = 0; i < playlists.size(); ++i)
    CHECK(playlists[i].position() == programmes[i].bytes.size());
}

}  // namespace
}  // namespace nvr::test
