// Parts of the engines: reads past the page cache, reads that leave nothing in it, which file a map is of.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <vector>

#include "daemon/direct_reads.h"
#include "daemon/drop_behind.h"
#include "daemon/file_maps.h"
#include "daemon/mmap_engine.h"
#include "daemon/page_cache.h"
#include "shm/clock.h"
#include "tests/support/environment.h"
#include "tests/support/temp_dir.h"

// The page size that this program is told; 0: the kernel's.
static std::atomic<long> told_page_bytes = 0;

// Instead of the C library's: asks the kernel's auxiliary vector for the page size, as that does.
extern "C" long sysconf(int name) noexcept {
  static const auto next = reinterpret_cast<long (*)(int)>(dlsym(RTLD_NEXT, "sysconf"));
  const long told = told_page_bytes;
  return name == _SC_PAGESIZE && told > 0 ? told : next(name);
}

namespace nvr::daemon {
namespace {

constexpr std::uint64_t kPage = 4096;

void write_file(const std::string& path, std::size_t bytes, char fill) {
  std::ofstream(path) << std::string(bytes, fill);
}

SampleFile open_file(const std::string& path) {
  SampleFile file;
  file.fd.reset(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(SampleDir::describe(file) == 0);
  file.end = file.size;
  return file;
}

// A read of one slot, `done` bytes of it already there.
struct OneSlot {
  OneSlot(SampleFile& file, std::uint64_t offset, std::uint32_t length, std::uint32_t done = 0)
      : memory(shm::kSlotBytes, std::byte{0xee}) {
    operation.kind = Operation::Kind::kRead;
    operation.file = &file;
    operation.offset = offset;
    operation.length = length;
    operation.done = done;
    operation.slot_count = 1;
    operation.targets[0] = memory.data();
  }
  std::vector<std::byte> memory;
  Operation operation;
};

TEST_CASE("direct reads: what is aligned in file and memory goes into the slots, the rest beside them") {
  SampleFile file;
  file.dio_align = 512;
  const auto plan = [&](std::uint64_t offset, std::uint32_t length, std::uint32_t done = 0) {
    const DirectRead read = plan_direct_read(OneSlot(file, offset, length, done).operation);
    return std::vector<std::uint64_t>{read.offset, read.length, read.skip, read.bounces ? 1U : 0U};
  };
  using Plan = std::vector<std::uint64_t>;
  CHECK(plan(1024, 2048) == Plan{1024, 2048, 0, 0});
  CHECK(plan(1024, 2048 + 100) == Plan{1024, 2048, 0, 0});
  CHECK(plan(1024, 2048 + 100, 2048) == Plan{3072, 512, 0, 1});
  CHECK(plan(100, 1000) == Plan{0, 1536, 100, 1});
  CHECK(plan(512, 2048, 100) == Plan{512, 2048, 100, 1});  // after a short read
  CHECK(plan(100, 2048, 412) == Plan{512, 2048, 0, 1});    // aligned in the file, not in memory
}

TEST_CASE("direct reads: of what bounces the client gets what it asked for, and nothing beside it") {
  SampleFile file;
  file.dio_align = 512;
  BounceBuffer buffer;
  std::byte* const bounced = buffer.get(shm::kSlotBytes);
  for (std::size_t i = 0; i < 2048; ++i) bounced[i] = static_cast<std::byte>(i % 251);
  OneSlot read(file, 100, 1000);
  const DirectRead plan = plan_direct_read(read.operation);
  CHECK(buffer.deliver(plan, -EIO, read.operation) == -EIO);
  CHECK(buffer.deliver(plan, 50, read.operation) == 0);  // the file ends before what was asked for
  CHECK(buffer.deliver(plan, 100, read.operation) == 0);
  CHECK(read.memory[0] == std::byte{0xee});
  CHECK(buffer.deliver(plan, 300, read.operation) == 200);
  CHECK(read.memory[200] == std::byte{0xee});
  CHECK(buffer.deliver(plan, 1536, read.operation) == 1000);
  CHECK(std::equal(bounced + 100, bounced + 1100, read.memory.begin()));
  CHECK(read.memory[1000] == std::byte{0xee});
}

TEST_CASE("a read that failed asks for less, up to the end of a block, down to one block") {
  SampleFile file;
  file.dio_align = 512;
  OneSlot read(file, 1000, 60'000);
  Operation& operation = read.operation;
  std::array<iovec, kMaxReadSlots> parts;
  CHECK(operation.left() == 60'000);
  CHECK(operation.shorten(512));  // 60000 / 16, in whole blocks, less what is left of the first one
  CHECK(operation.left() == 7 * 512 - 488);
  CHECK((operation.position() + operation.left()) % 512 == 0);
  REQUIRE(operation.parts_left(parts) == 1);
  CHECK(parts[0].iov_len == operation.left());
  CHECK(plan_direct_read(operation).offset + plan_direct_read(operation).length == 1000 + operation.left());
  CHECK(operation.shorten(512));
  CHECK(operation.left() == 24);
  CHECK_FALSE(operation.shorten(512));
  operation.done = 24;
  CHECK_FALSE(operation.shorten(512));
  operation.done = 59'990;
  CHECK(operation.left() == 10);
  BounceBuffer buffer;
  std::fill_n(buffer.get(shm::kSlotBytes), 4096, std::byte{1});
  operation.done = 24;
  CHECK(buffer.deliver({.offset = 1024, .length = 512, .skip = 0, .bounces = true}, 512, operation) == 24);
  CHECK(read.memory[47] == std::byte{1});
  CHECK(read.memory[48] == std::byte{0xee});
}

TEST_CASE("direct reads: a registered window's place is free again when its stream has ended") {
  io_uring ring = {};
  if (const int error = io_uring_queue_init(4, &ring, 0); error != 0)
    return test::skip_or_fail("there is no io_uring");
  RegisteredWindows windows;
  std::vector<std::byte> memory(2 * kPage);
  const auto add = [&] { return windows.add(ring, std::span(memory).first(kPage)); };
  for (std::uint32_t i = 0; i < 2 * RegisteredWindows::kMax; ++i) {
    const std::int32_t index = add();
    REQUIRE(index >= 0);
    windows.remove(ring, index);
  }
  for (std::uint32_t i = 0; i < RegisteredWindows::kMax; ++i) CHECK(add() == static_cast<std::int32_t>(i));
  CHECK(add() == -1);  // reads go without
  windows.remove(ring, -1);
  CHECK(add() == -1);
  windows.remove(ring, 5);
  CHECK(add() == 5);
  io_uring_queue_exit(&ring);
}

TEST_CASE("file maps: files of two disks that have the same inode number are two files") {
  const test::TempDir scratch;
  write_file(scratch / "a", kPage, 'a');
  write_file(scratch / "b", kPage, 'b');
  SampleFile a = open_file(scratch / "a");
  SampleFile b = open_file(scratch / "b");
  b.inode = a.inode;
  b.device = a.device + 1;
  FileMaps maps;
  const auto map_of_a = maps.map(a, 1);
  const auto map_of_b = maps.map(b, 1);
  REQUIRE(map_of_a);
  REQUIRE(map_of_b);
  CHECK((*map_of_a)->data()[0] == std::byte{'a'});
  CHECK((*map_of_b)->data()[0] == std::byte{'b'});
}

TEST_CASE("file maps: a file that has the inode number of one that is gone is another") {
  const test::TempDir scratch;
  write_file(scratch / "a", kPage, 'a');
  write_file(scratch / "b", kPage, 'b');
  SampleFile a = open_file(scratch / "a");
  SampleFile b = open_file(scratch / "b");
  b.inode = a.inode;
  b.mtime_ns = a.mtime_ns;
  const auto shares_a_map = [&] {
    FileMaps maps;
    const auto map_of_a = maps.map(a, 1);
    const auto map_of_b = maps.map(b, 1);
    REQUIRE(map_of_a);
    REQUIRE(map_of_b);
    return *map_of_a == *map_of_b;
  };
  a.birth_ns = 1;
  b.birth_ns = 2;
  CHECK_FALSE(shares_a_map());
  b.birth_ns = 1;
  ++b.mtime_ns;  // it has grown
  CHECK(shares_a_map());
  a.birth_ns = b.birth_ns = 0;
  CHECK_FALSE(shares_a_map());
  b.mtime_ns = a.mtime_ns;
  CHECK(shares_a_map());
}

TEST_CASE("sample dir: what is told of an open file is exact") {
  const test::TempDir scratch;
  write_file(scratch / "a", 1234, 'a');
  const timespec times[2] = {{.tv_sec = 1, .tv_nsec = 1}, {.tv_sec = 1'700'000'000, .tv_nsec = 123'456'789}};
  REQUIRE(utimensat(AT_FDCWD, (scratch / "a").c_str(), static_cast<const timespec*>(times), 0) == 0);
  struct stat st = {};
  REQUIRE(stat((scratch / "a").c_str(), &st) == 0);
  const SampleFile file = open_file(scratch / "a");
  CHECK(file.size == 1234);
  CHECK(file.inode == st.st_ino);
  CHECK(file.device == st.st_dev);
  CHECK(file.mtime_ns == st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec);
  struct statx stx = {};
  REQUIRE(statx(AT_FDCWD, (scratch / "a").c_str(), 0, STATX_BTIME, &stx) == 0);
  const bool has_birth = (stx.stx_mask & STATX_BTIME) != 0;
  CHECK(file.birth_ns == (has_birth ? stx.stx_btime.tv_sec * 1'000'000'000 + stx.stx_btime.tv_nsec : 0));
  CHECK(file.residency_known);
  if (geteuid() != 0) return test::skip_or_fail("files of other users need root");
  REQUIRE(chown((scratch / "a").c_str(), 1, 1) == 0);
  CHECK_FALSE(open_file(scratch / "a").residency_known);  // mincore() says yes to everything
}

// By whole pages of a file that the page cache knows nothing of at first.
class ColdFile {
 public:
  ColdFile() {
    write_file(scratch_ / "cold", 16 * kPage, 'c');
    file = open_file(scratch_ / "cold");
    fsync(file.fd.get());
    posix_fadvise(file.fd.get(), 0, 0, POSIX_FADV_DONTNEED);
    posix_fadvise(file.fd.get(), 0, 0, POSIX_FADV_RANDOM);
  }
  [[nodiscard]] bool is_cold() const { return presence(0, 16) == Presence::kNone; }
  void bring_in(std::uint64_t page, std::uint64_t count) const {
    std::vector<char> bytes(count * kPage);
    REQUIRE(pread(file.fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(page * kPage)) > 0);
  }
  [[nodiscard]] std::optional<Presence> presence(std::uint64_t page, std::uint64_t count) const {
    return presence_of(file.fd.get(), page * kPage, count * kPage);
  }
  SampleFile file;

 private:
  test::TempDir scratch_;
};

TEST_CASE("drop behind: what a read brought in goes after it, what was there stays") {
  ColdFile cold;
  if (!cold.is_cold())
    return test::skip_or_fail("the page cache of this file system cannot be emptied or asked");
  DropBehind drop;
  drop.set_unsupported();
  CHECK(drop.flags() == 0);
  OneSlot own(cold.file, 4 * kPage + 100, 4 * kPage);
  drop.before(own.operation);
  CHECK(own.operation.drops);
  cold.bring_in(4, 5);
  drop.after(own.operation);
  CHECK(cold.presence(4, 5) == Presence::kNone);
  CHECK_FALSE(own.operation.drops);

  cold.bring_in(10, 2);
  OneSlot others(cold.file, 10 * kPage, 3 * kPage);
  drop.before(others.operation);
  CHECK_FALSE(others.operation.drops);
  cold.bring_in(12, 1);
  drop.after(others.operation);
  CHECK(cold.presence(10, 2) == Presence::kAll);
}

TEST_CASE("drop behind: the kernel says how large a page is") {
  ColdFile cold;
  if (!cold.is_cold())
    return test::skip_or_fail("the page cache of this file system cannot be emptied or asked");
  cold.bring_in(0, 16);
  told_page_bytes = 4 * kPage;
  give_back(cold.file, 1, 5 * kPage);  // of two larger pages, neither as a whole
  CHECK(presence_of(cold.file.fd.get(), 0, 16 * kPage) == Presence::kAll);
  give_back(cold.file, kPage, 9 * kPage);
  told_page_bytes = 0;
  CHECK(cold.presence(0, 4) == Presence::kAll);
  CHECK(cold.presence(4, 4) == Presence::kNone);
  CHECK(cold.presence(8, 8) == Presence::kAll);
}

TEST_CASE("drop behind: what is given back are whole pages, no more than was brought in") {
  ColdFile cold;
  if (!cold.is_cold())
    return test::skip_or_fail("the page cache of this file system cannot be emptied or asked");
  cold.bring_in(0, 8);
  give_back(cold.file, 2 * kPage + 1, 6 * kPage - 1);
  CHECK(cold.presence(0, 3) == Presence::kAll);
  CHECK(cold.presence(3, 2) == Presence::kNone);
  CHECK(cold.presence(5, 3) == Presence::kAll);
  give_back(cold.file, 6 * kPage + 1, 6 * kPage + 2);
  CHECK(cold.presence(5, 3) == Presence::kAll);
}

TEST_CASE("mmap engine: reads that leave nothing in memory work where the file system knows no such reads") {
  const std::string path = "/dev/shm/nvr-test-" + std::to_string(getpid());
  std::filesystem::create_directory(path);
  write_file(path + "/" + file_name_of({1, 1}), 3 * kPage, 'd');
  {
    const auto directory = SampleDir::open(path);
    REQUIRE(directory);
    auto engine = MmapEngine::create(*directory, 1 << 20);
    REQUIRE(engine);
    const auto run = [&](Operation& operation) {
      Completion completion;
      (*engine)->submit(operation);
      REQUIRE((*engine)->reap(std::span(&completion, 1)) == 1);
      CHECK(completion.operation == &operation);
      return completion.result;
    };
    Operation opening;
    opening.recording = {1, 1};
    opening.cache = CachePolicy::kDrop;
    REQUIRE(run(opening) == 0);
    OneSlot read(*opening.opened, 100, 2 * kPage);
    CHECK(run(read.operation) == 2 * kPage);
    CHECK(std::count(read.memory.begin(), read.memory.end(), std::byte{'d'}) == 2 * kPage);
    OneSlot beyond(*opening.opened, 3 * kPage, kPage);
    CHECK(run(beyond.operation) == 0);
    SampleFile closed;
    OneSlot unreadable(closed, 0, kPage);
    CHECK(run(unreadable.operation) == -EBADF);
    const int fd = opening.opened->fd.get();
    (*engine)->close(std::move(opening.opened));
    CHECK((*engine)->wait(0) == 0);
    CHECK(fcntl(fd, F_GETFD) < 0);
  }
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace nvr::daemon
