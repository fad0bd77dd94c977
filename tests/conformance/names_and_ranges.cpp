// C01 to C09: names of sample files, and the bytes that a range delivers.
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <limits>

#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

std::string text_of(const Chunk& chunk) {
  return {reinterpret_cast<const char*>(chunk.bytes().data()), chunk.bytes().size()};
}

// Does `needle` occur anywhere in what this process has mapped of the daemon's memory?
bool daemon_memory_contains(std::string_view needle) {
  for (const MapEntry& entry : mappings_of(getpid())) {
    if (!entry.permissions.starts_with("r--s") || !entry.name.starts_with("/memfd:")) continue;
    if (memmem(reinterpret_cast<const void*>(entry.begin), entry.end - entry.begin, needle.data(),
               needle.size()) != nullptr)
      return true;
  }
  return false;
}

TEST_CASE("C01 a sample file is named by its composite id as 16 lower-case hex digits") {
  const Site site;
  const RecordingId id{3, 1842086};
  CHECK(id.composite() == ((std::uint64_t{3} << 32) | 1842086));
  CHECK(file_name_of(id) == "00000003001c1ba6");
  CHECK(to_string(id) == "3/1842086");

  // What a careless reader might take for it.
  for (const char* const decoy :
       {"00000003001C1BA6", "3001c1ba6", "0x00000003001c1ba6", "00000003001c1ba6.mp4"})
    write_file(site.directory() + "/" + decoy, "decoy");
  REQUIRE(mkdir((site.directory() + "/3").c_str(), 0755) == 0);
  write_file(site.directory() + "/3/1842086", "decoy");

  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  {
    Stream stream = open_stream(client, {.recording = id});
    CHECK(code_of(stream.next()) == Code::kNotFound);
  }
  const RecordingFile file = site.record(id, 100'000);
  CHECK(file.path == site.directory() + "/00000003001c1ba6");
  CHECK(problem_reading(client, file) == "");

  const RecordingFile last =
      site.record({std::numeric_limits<std::uint32_t>::max(), std::numeric_limits<std::uint32_t>::max()}, 10);
  CHECK(last.path == site.directory() + "/ffffffffffffffff");
  CHECK(problem_reading(client, last) == "");
  const RecordingFile first = site.record({0, 0}, 10);
  CHECK(first.path == site.directory() + "/0000000000000000");
  CHECK(problem_reading(client, first) == "");
}

TEST_CASE("C01 no other name can be asked for", "[once]") {
  const Site site;
  write_file(site.directory() + "/meta", "secret");
  write_file(site.root() / "00000003001c1ba6", "secret");
  const DaemonProcess daemon = site.start();
  for (const char* const name :
       {"meta", "../00000003001c1ba6", "/etc/passwd", "", ".", "3/", "/3", "3/-1", "3/1/2", "4294967296/1",
        "1/4294967296", "00000003001C1BA6", "00000003001c1ba", "3/1842086x", "0x00000003001c1ba6",
        "00000003001c1ba6a", " 3/1", "+3/1"}) {
    CAPTURE(name);
    const auto parsed = RecordingId::parse(name);
    REQUIRE_FALSE(parsed.has_value());
    CHECK(parsed.error().code == Code::kInvalidArgument);
    const auto result = run_program({path_of_cat(), "--socket", daemon.socket(), name});
    CHECK(to_string(result.exit) == "exit 2");
    CHECK(result.output.empty());
    CHECK_FALSE(result.errors.empty());
  }
  CHECK(daemon.total("opens") == 0);
}

TEST_CASE("C02 an empty range is a stream that has already ended", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  daemon.stop();  // whatever asks the daemon now does not get an answer
  const std::array<std::pair<std::uint64_t, std::uint64_t>, 5> ranges = {
      {{0, 0}, {5, 5}, {7, 3}, {std::numeric_limits<std::uint64_t>::max() - 1, 0}, {1ull << 63, 1ull << 63}}};
  for (const RecordingId id : {file.id, RecordingId{9, 9}}) {
    for (const auto& [begin, end] : ranges) {
      CAPTURE(begin, end, to_string(id));
      auto stream = client.open({.recording = id, .begin = begin, .end = end});
      REQUIRE(stream.has_value());
      CHECK_FALSE(stream->next().has_value());
      CHECK_FALSE(stream->next(in(std::chrono::seconds(1))).has_value());
      CHECK_FALSE(stream->try_next().has_value());
    }
  }
  daemon.go_on();
  CHECK(daemon.total("opens") == 0);
}

TEST_CASE("C02 more empty streams than the connection has streams", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  std::vector<Stream> streams;
  for (int i = 0; i < 10; ++i) {
    auto stream = client.open({.recording = {9, 9}, .begin = 10, .end = 10});
    REQUIRE(stream.has_value());
    streams.push_back(std::move(*stream));
  }
  for (Stream& stream : streams) CHECK_FALSE(stream.next().has_value());
}

TEST_CASE("C03 chunks are cut relative to the start") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1'000'000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  const std::uint64_t begin = 12'345;
  const std::uint64_t end = 999'998;
  Stream stream = open_stream(client, file, begin, end);
  for (std::uint64_t k = 0; begin + k * 65536 < end; ++k) {
    CAPTURE(k);
    const auto chunk = stream.next();
    REQUIRE(chunk.has_value());
    REQUIRE(chunk->has_value());
    CHECK((*chunk)->offset() == begin + k * 65536);
    CHECK((*chunk)->bytes().size() == std::min<std::uint64_t>(65536, end - (begin + k * 65536)));
    CHECK(file.difference((*chunk)->offset(), (*chunk)->bytes()) == "");
  }
  CHECK_FALSE(stream.next().has_value());
}

TEST_CASE("C04 an exact multiple of 65536 ends with a full chunk") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 4 * 65536);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  for (const std::uint64_t begin : {0u, 1u, 4096u, 65535u, 65536u}) {
    for (const std::uint64_t chunks : {1u, 2u}) {
      CAPTURE(begin, chunks);
      Stream stream = open_stream(client, file, begin, begin + chunks * 65536);
      const Outcome outcome = drain(stream);
      CHECK(outcome.chunks == chunks);
      CHECK(outcome.bytes == chunks * 65536);
      CHECK_FALSE(outcome.error.has_value());
      CHECK(outcome.problem == "");
    }
  }
  Stream whole = open_stream(client, file);
  CHECK(drain(whole).chunks == 4);
}

TEST_CASE("C05 an unaligned start never exposes the bytes before it") {
  const Site site;
  write_file(site.directory() + "/0123456789abcdef", "blah blah");
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  Stream stream = open_stream(client, {.recording = {0x01234567, 0x89abcdef}, .begin = 1, .end = 8});
  const auto chunk = stream.next();
  REQUIRE(chunk.has_value());
  REQUIRE(chunk->has_value());
  CHECK(text_of(**chunk) == "lah bla");
  CHECK((*chunk)->offset() == 1);
  CHECK_FALSE(stream.next().has_value());
  CHECK(daemon_memory_contains("lah bla"));
  CHECK_FALSE(daemon_memory_contains("blah"));
}

TEST_CASE("C05 no byte outside of the range reaches the client's memory") {
  const Site site;
  const std::string before = "secret before the range";
  const std::string inside(70'000, 'x');
  const std::string after = "secret behind the range";
  write_file(site.directory() + "/0000000100000001", before + inside + after);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  Stream stream = open_stream(
      client, {.recording = {1, 1}, .begin = before.size(), .end = before.size() + inside.size()});
  CHECK(drain(stream).bytes == inside.size());
  CHECK(daemon_memory_contains("xxxxxxxx"));
  CHECK_FALSE(daemon_memory_contains("secret"));
}

TEST_CASE("C06 the concatenation equals the file's bytes") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 4 * 65537);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  const std::array<std::uint64_t, 8> edges = {0, 1, 4095, 4096, 4097, 65535, 65536, 65537};
  for (const std::uint64_t begin : edges) {
    for (const std::uint64_t length : edges) {
      if (length == 0) continue;
      CAPTURE(begin, length);
      CHECK(problem_reading(client, file, begin, begin + length) == "");
    }
  }
}

TEST_CASE("C06 random ranges are exact with cold and with cached files") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 5'000'001);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 8});
  for (int i = 0; i < scaled(200, 60); ++i) {
    if (i % 4 == 0) evict(file.path);
    const std::uint64_t begin = pick(test_random(), 0, file.size - 1);
    const std::uint64_t end = pick(test_random(), begin + 1, std::min(file.size, begin + 1'000'000));
    CAPTURE(i, begin, end);
    CHECK(problem_reading(client, file, begin, end) == "");
  }
}

TEST_CASE("C07 end equal to the file length works") {
  const Site site;
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  std::uint32_t recording = 1;
  for (const std::uint64_t size : {1u, 4096u, 65536u, 65537u, 300'000u}) {
    CAPTURE(size);
    const RecordingFile file = site.record({1, recording++}, size);
    CHECK(problem_reading(client, file, 0, size) == "");
    CHECK(problem_reading(client, file, size - 1, size) == "");
    Stream to_end = open_stream(client, file);
    CHECK(problem_reading(to_end, file, 0, size) == "");
  }
}

TEST_CASE("C07 end beyond the file length is OutOfRange and names id and range and length") {
  const Site site;
  const RecordingFile file = site.record({3, 1842086}, 300'000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  for (const std::uint64_t begin : {0u, 12'345u, 300'000u}) {
    CAPTURE(begin);
    Stream stream = open_stream(client, file, begin, 300'001);
    const auto next = stream.next();
    REQUIRE(code_of(next) == Code::kOutOfRange);
    const std::string& message = next->error().message;
    CAPTURE(message);
    CHECK(message.find("3/1842086") != std::string::npos);
    CHECK(message.find(std::to_string(begin)) != std::string::npos);
    CHECK(message.find("300001") != std::string::npos);
    CHECK(message.find("300000") != std::string::npos);
    CHECK_FALSE(stream.next().has_value());
  }
}

TEST_CASE("C07 a range to the end that begins beyond it is OutOfRange and at it is empty") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const RecordingFile empty = site.record({1, 2}, 0);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  Stream beyond = open_stream(client, file, 1001);
  CHECK(code_of(beyond.next()) == Code::kOutOfRange);
  Stream at_end = open_stream(client, file, 1000);
  CHECK_FALSE(at_end.next().has_value());
  Stream of_empty = open_stream(client, empty);
  CHECK_FALSE(of_empty.next().has_value());
}

TEST_CASE("C08 ranges beyond and across 2 GiB and 4 GiB are exact") {
  const Site site;
  constexpr std::uint64_t kGiB = 1ull << 30;
  constexpr std::uint64_t kRadius = 300'000;
  const std::array<std::uint64_t, 4> places = {2 * kGiB, 4 * kGiB, 5 * kGiB, 8 * kGiB};
  const RecordingFile file =
      make_sparse_recording(site.directory(), {1, 1}, 8 * kGiB + 100, test_seed(), places, kRadius);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  for (const std::uint64_t place : places) {
    CAPTURE(place);
    const std::uint64_t last = std::min(file.size, place + kRadius);
    CHECK(problem_reading(client, file, place - kRadius, last) == "");
    CHECK(problem_reading(client, file, place - 1, place + 1) == "");
    CHECK(problem_reading(client, file, place, place + 70) == "");
    CHECK(problem_reading(client, file, place - 12'345, last - 7) == "");
  }
  Stream to_end = open_stream(client, file, 8 * kGiB - 1);
  CHECK(problem_reading(to_end, file, 8 * kGiB - 1, file.size) == "");
  const auto info = client.stat(file.id);
  REQUIRE(info.has_value());
  CHECK(info->size == file.size);
}

TEST_CASE("C08 offsets beyond what a file can have are OutOfRange") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  const std::array<std::pair<std::uint64_t, std::uint64_t>, 6> ranges = {{{0, kMost},
                                                                          {0, kMost + 1},
                                                                          {kMost, kMost + 1},
                                                                          {kMost + 1, kMost + 2},
                                                                          {kMost + 5, kToEnd},
                                                                          {kToEnd - 2, kToEnd - 1}}};
  for (const auto& [begin, end] : ranges) {
    CAPTURE(begin, end);
    Stream stream = open_stream(client, file, begin, end);
    CHECK(code_of(stream.next()) == Code::kOutOfRange);
    CHECK_FALSE(stream.next().has_value());
  }
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("C09 after the last chunk or any error the stream stays ended") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100'000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  Stream good = open_stream(client, file);
  while (const auto chunk = good.next()) REQUIRE(chunk->has_value());
  Stream missing = open_stream(client, {.recording = {9, 9}});
  CHECK(code_of(missing.next()) == Code::kNotFound);
  Stream beyond = open_stream(client, file, 0, 100'001);
  CHECK(code_of(beyond.next()) == Code::kOutOfRange);
  Stream cancelled = open_stream(client, file);
  cancelled.cancel();
  CHECK(code_of(cancelled.next()) == Code::kCancelled);
  for (Stream* const stream : {&good, &missing, &beyond, &cancelled}) {
    for (int i = 0; i < 3; ++i) {
      CHECK_FALSE(stream->next().has_value());
      CHECK_FALSE(stream->try_next().has_value());
      CHECK_FALSE(stream->next(in(std::chrono::seconds(1))).has_value());
    }
    int turns = 0;
    for (auto& chunk : *stream) turns += chunk ? 1 : 100;
    CHECK(turns == 0);
  }
}

}  // namespace
}  // namespace nvr::test
