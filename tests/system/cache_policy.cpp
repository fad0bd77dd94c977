// What reading leaves in the page cache, by policy; and that each policy delivers exact bytes.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <vector>

#include "shm/mapping.h"
#include "shm/unique_fd.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint64_t kSize = 4 * 1024 * 1024 + 1234;

// What is in memory of a file. It is opened once: FUSE drops what is in memory whenever it is opened.
class Residency {
 public:
  explicit Residency(const RecordingFile& file) : pages_((file.size + 4095) / 4096) {
    const shm::UniqueFd fd(open(file.path.c_str(), O_RDONLY | O_CLOEXEC));
    auto map = shm::Mapping::create(fd.get(), 0, file.size, shm::Access::kReadOnly, file.path);
    if (!map) throw TestFailure("cannot map " + file.path);
    map_ = std::move(*map);
  }
  // The part of its pages.
  [[nodiscard]] double part() {
    if (mincore(map_.data(), map_.size(), pages_.data()) != 0) throw TestFailure("mincore does not work");
    const auto there =
        std::count_if(pages_.begin(), pages_.end(), [](unsigned char page) { return (page & 1) != 0; });
    return static_cast<double>(there) / static_cast<double>(pages_.size());
  }

 private:
  shm::Mapping map_;
  std::vector<unsigned char> pages_;
};
double part_in_memory(const RecordingFile& file) {
  return Residency(file).part();
}

using test::problem_reading;  // and, with a cache policy:
std::string problem_reading(Client& client, const RecordingFile& file, CachePolicy cache, std::uint64_t begin,
                            std::uint64_t end) {
  Stream stream = open_stream(client, {.recording = file.id, .begin = begin, .end = end, .cache = cache});
  return nvr::test::problem_reading(stream, file, begin, end);
}

TEST_CASE("a normal read leaves a recording in memory, a dropping one does not") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kSize);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 32});

  evict(file.path);
  REQUIRE(part_in_memory(file) == 0);
  CHECK(problem_reading(client, file, CachePolicy::kNormal, 0, kSize) == "");
  CHECK(part_in_memory(file) > 0.9);

  for (const std::uint64_t begin : {std::uint64_t{0}, std::uint64_t{4096}, std::uint64_t{12'345}}) {
    CAPTURE(begin);
    evict(file.path);
    REQUIRE(part_in_memory(file) == 0);
    CHECK(problem_reading(client, file, CachePolicy::kDrop, begin, kSize) == "");
    CHECK(part_in_memory(file) < 0.1);
  }
}

// Each of its visits brings in more than the reader's window takes.
TEST_CASE("what a spinning disk was asked ahead of a stream that is closed early is given back") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 8 * kSize);
  const DaemonProcess daemon = site.start({"--device-kind", "rotational"});
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 4});
  evict(file.path);
  {
    Stream stream = open_stream(client, file);
    for (int i = 0; i < 4; ++i) REQUIRE(stream.next().has_value());
    REQUIRE(wait_until([&] { return part_in_memory(file) > 0.1; }));
    REQUIRE(wait_until([&] { return daemon.status().at("operations_in_flight") == 0; }));
  }
  CHECK(wait_until([&] { return part_in_memory(file) < 0.05; }));
  CHECK(problem_reading(client, file) == "");
}

// Of a recording that a stream had before, much was brought in.
TEST_CASE("on a spinning disk a stat or an open that fails leaves in memory what is there of its recording") {
  const Site site;
  const RecordingFile cold = site.record({1, 1}, 8 * kSize);
  const RecordingFile watched = site.record({1, 2}, 8 * kSize);
  const DaemonProcess daemon = site.start({"--device-kind", "rotational"});
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 4});
  evict(watched.path);  // what has not been written back could not be given up
  CHECK(problem_reading(client, watched) == "");
  REQUIRE(part_in_memory(watched) > 0.99);
  const bool is_stat = GENERATE(true, false);
  CAPTURE(is_stat);
  evict(cold.path);
  CHECK(problem_reading(client, cold) == "");
  if (is_stat) {
    CHECK(client.stat(watched.id).has_value());
  } else {
    Stream beyond = open_stream(client, watched, 0, watched.size + 1);
    CHECK(code_of(beyond.next()) == Code::kOutOfRange);
  }
  CHECK(problem_reading(client, cold, 0, 1) == "");  // the disk thread is done with the other by now
  CHECK(part_in_memory(watched) > 0.99);
}

TEST_CASE("a dropping read leaves in memory what was there before") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kSize);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 32});
  evict(file.path);
  CHECK(problem_reading(client, file, CachePolicy::kNormal, 0, kSize) == "");
  const double before = part_in_memory(file);
  REQUIRE(before > 0.9);
  for (int i = 0; i < 3; ++i) CHECK(problem_reading(client, file, CachePolicy::kDrop, 0, kSize) == "");
  CHECK(part_in_memory(file) >= before);
}

TEST_CASE("a dropping read is exact on a file system without RWF_DONTCACHE, and drops what it brought in") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  const SlowDisk disk(site.directory());
  RecordingFile file = make_recording(disk.backing(), {1, 1}, kSize, 1);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 32});
  file.path = site.directory() + "/" + file_name_of(file.id);
  Residency residency(file);
  for (const std::uint64_t begin : {std::uint64_t{0}, std::uint64_t{12'345}}) {
    CAPTURE(begin);
    CHECK(problem_reading(client, file, CachePolicy::kNormal, begin, kSize) == "");
    CHECK(residency.part() > 0.9);
    CHECK(problem_reading(client, file, CachePolicy::kDrop, begin, kSize) == "");
    CHECK(residency.part() < 0.1);
  }
}

TEST_CASE("a direct read is exact for any range and leaves nothing in memory, and mmap refuses it") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kSize);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 32});
  evict(file.path);
  if (engine_under_test() == "mmap") {
    Stream stream = open_stream(client, {.recording = file.id, .cache = CachePolicy::kDirect});
    const auto refused = stream.next();
    REQUIRE(code_of(refused) == Code::kUnimplemented);
    CHECK((*refused).error().message.find("cache policy") != std::string::npos);
    CHECK_FALSE(stream.next().has_value());
    CHECK(problem_reading(client, file) == "");
    return;
  }
  const std::vector<std::uint64_t> places = {0,      1,      511,    512,     4095,        4096,      4097,
                                             65'535, 65'536, 65'537, 131'072, kSize - 513, kSize - 1, kSize};
  for (const std::uint64_t begin : places) {
    for (const std::uint64_t end : places) {
      if (begin >= end) continue;
      CAPTURE(begin, end);
      CHECK(problem_reading(client, file, CachePolicy::kDirect, begin, end) == "");
    }
  }
  for (int i = 0; i < 50; ++i) {
    const std::uint64_t begin = pick(test_random(), std::uint64_t{0}, kSize - 1);
    const std::uint64_t end = pick(test_random(), begin + 1, kSize);
    CAPTURE(begin, end);
    CHECK(problem_reading(client, file, CachePolicy::kDirect, begin, end) == "");
  }
  CHECK(part_in_memory(file) == 0);
}

TEST_CASE("direct reads of many streams at a time, some dropped halfway, are exact", "[io_uring]") {
  const Site site;
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < 16; ++i) files.push_back(site.record({1, i}, kSize));
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 16, .slots_per_stream = 8});
  for (int round = 0; round < 4; ++round) {
    std::vector<Stream> streams;
    for (const RecordingFile& file : files) {
      evict(file.path);
      streams.push_back(open_stream(client, {.recording = file.id, .cache = CachePolicy::kDirect}));
    }
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if ((i + static_cast<std::size_t>(round)) % 3 == 0) {
        REQUIRE(code_of(streams[i].next()) == Code::kOk);
        streams[i].close();
        continue;
      }
      CHECK(nvr::test::problem_reading(streams[i], files[i], 0, kSize) == "");
    }
  }
  CHECK(daemon.wait_for_total("streams_open", 0));
  CHECK(daemon.wait_for_total("quarantined_bytes", 0));
}

TEST_CASE("a recording that is read again and again is exact, also when it is truncated meanwhile") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kSize);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  for (int i = 0; i < 8; ++i) CHECK(problem_reading(client, file) == "");
  Stream stream = open_stream(client, file);
  REQUIRE(code_of(stream.next()) == Code::kOk);
  REQUIRE(truncate(file.path.c_str(), 2 * 1024 * 1024 + 100) == 0);
  std::uint64_t end = kChunkBytes;
  for (;;) {
    const auto chunk = stream.next();
    REQUIRE(chunk.has_value());
    if (!*chunk) {
      CHECK((*chunk).error().code == Code::kDataLoss);
      break;
    }
    CHECK(file.difference((*chunk)->offset(), (*chunk)->bytes()) == "");
    end = (*chunk)->offset() + (*chunk)->bytes().size();
  }
  CHECK(end <= 2 * 1024 * 1024 + 100);
  CHECK(client.stat(file.id).has_value());
}

}  // namespace
}  // namespace nvr::test
