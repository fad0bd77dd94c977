// A file system of which nothing is in the page cache and nothing can be mapped: FUSE with direct_io, as
// mergerfs mounts by default.
#include <errno.h>
#include <fcntl.h>

#include <catch2/catch.hpp>
#include <vector>

#include "shm/mapping.h"
#include "shm/unique_fd.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint64_t kSize = 4 * 1024 * 1024 + 1234;

struct Uncached {
  Uncached() : disk(site.directory(), {"--direct-io"}) {
    file = make_recording(disk.backing(), {1, 1}, kSize, test_seed());
  }
  Site site;
  SlowDisk disk;
  RecordingFile file;
};

std::string problem_reading(Client& client, const RecordingFile& file, CachePolicy cache, std::uint64_t begin,
                            std::uint64_t end) {
  Stream stream = open_stream(client, {.recording = file.id, .begin = begin, .end = end, .cache = cache});
  return test::problem_reading(stream, file, begin, end);
}

TEST_CASE("a file system that cannot be mapped is read all the same: exact, and each byte once") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  Uncached lab;
  const shm::UniqueFd fd(
      open((lab.site.directory() + "/" + file_name_of(lab.file.id)).c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(fd);
  REQUIRE_FALSE(shm::Mapping::create(fd.get(), 0, kSize, shm::Access::kReadOnly, "it").has_value());
  const char* const kind = GENERATE("solid", "rotational");
  CAPTURE(kind);
  const DaemonProcess daemon = lab.site.start({"--device-kind", kind});
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 8});
  for (int i = 0; i < 4; ++i) {  // a recording that is read again and again would be mapped
    const std::uint64_t before = lab.disk.bytes_read();
    CHECK(problem_reading(client, lab.file, CachePolicy::kNormal, 0, kSize) == "");
    CHECK(lab.disk.bytes_read() - before == kSize);
  }
  CHECK(problem_reading(client, lab.file, CachePolicy::kDrop, 0, kSize) == "");
  if (engine_under_test() == "io_uring")
    CHECK(problem_reading(client, lab.file, CachePolicy::kDirect, 0, kSize) == "");
  for (int i = 0; i < 30; ++i) {
    const std::uint64_t begin = pick(test_random(), std::uint64_t{0}, kSize - 1);
    const std::uint64_t end = pick(test_random(), begin + 1, kSize);
    CAPTURE(begin, end);
    CHECK(problem_reading(client, lab.file, CachePolicy::kNormal, begin, end) == "");
    CHECK(problem_reading(client, lab.file, CachePolicy::kDrop, begin, end) == "");
  }
  const auto info = client.stat(lab.file.id);
  REQUIRE(info.has_value());
  CHECK(info->size == kSize);
}

TEST_CASE("a file system that cannot be mapped: streams side by side, short reads, and a file cut short") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  Uncached lab;
  const char* const kind = GENERATE("solid", "rotational");
  CAPTURE(kind);
  const DaemonProcess daemon = lab.site.start({"--device-kind", kind});
  Client client = connect_to(daemon, {.streams = 8, .slots_per_stream = 4});
  lab.disk.order("short 50%");
  std::vector<Stream> streams;
  for (std::uint64_t i = 0; i < 8; ++i) streams.push_back(open_stream(client, lab.file, i * 100'000));
  for (std::uint64_t i = 0; i < streams.size(); ++i)
    CHECK(test::problem_reading(streams[i], lab.file, i * 100'000, kSize) == "");
  Stream stream = open_stream(client, lab.file);
  REQUIRE(stream.info().has_value());
  lab.disk.order("truncate file " + file_name_of(lab.file.id) + " 1000000");
  ChunkChecker checker(lab.file, 0, kSize);
  const Outcome outcome = drain(stream, &checker);
  CHECK(outcome.problem == "");
  REQUIRE(outcome.error.has_value());
  CHECK(outcome.error->code == Code::kDataLoss);
  CHECK(outcome.error->offset == 1'000'000);
  CHECK(checker.next_offset() == 1'000'000 / kChunkBytes * kChunkBytes);
}

TEST_CASE("a file system that cannot be mapped: a bad sector costs no byte before it") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  Uncached lab;
  constexpr std::uint64_t kBad = (1 << 20) + 512;
  lab.disk.order("eio file " + file_name_of(lab.file.id) + " " + std::to_string(kBad) + "-" +
                 std::to_string(kBad + 512));
  const DaemonProcess daemon = lab.site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 32});
  for (const CachePolicy cache : {CachePolicy::kNormal, CachePolicy::kDrop}) {
    for (const std::uint64_t begin : {std::uint64_t{0}, std::uint64_t{12'345}}) {
      CAPTURE(begin);
      Stream stream = open_stream(client, {.recording = lab.file.id, .begin = begin, .cache = cache});
      ChunkChecker checker(lab.file, begin, kSize);
      const Outcome outcome = drain(stream, &checker);
      CHECK(outcome.problem == "");
      REQUIRE(outcome.error.has_value());
      CHECK(outcome.error->code == Code::kDataLoss);
      CHECK(outcome.error->sys_errno == EIO);
      CHECK(outcome.error->offset == kBad);
      CHECK(outcome.bytes == (kBad - begin) / kChunkBytes * kChunkBytes);
    }
  }
  CHECK(problem_reading(client, lab.file, CachePolicy::kNormal, kBad + 512, kSize) == "");
}

}  // namespace
}  // namespace nvr::test
