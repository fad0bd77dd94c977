// The daemon's dealings with files: recordings beneath the directory, copies behind the SIGBUS guard, the
// socket path.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "daemon/closing.h"
#include "daemon/doorbells.h"
#include "daemon/file_maps.h"
#include "daemon/io_uring_engine.h"
#include "daemon/listener.h"
#include "daemon/page_cache.h"
#include "daemon/page_table.h"
#include "daemon/sample_dir.h"
#include "daemon/sigbus_guard.h"
#include "shm/clock.h"
#include "shm/mapping.h"
#include "shm/socket.h"
#include "tests/support/environment.h"
#include "tests/support/system_calls.h"
#include "tests/support/temp_dir.h"

namespace nvr::daemon {
namespace {

using Scratch = test::TempDir;

// Opened before any test, for good: no test leaks it.
[[maybe_unused]] const PageTable& page_table = PageTable::of_this_process();

void write_file(const std::string& path, std::size_t bytes, char fill = 'x') {
  std::ofstream(path) << std::string(bytes, fill);
}

TEST_CASE("sample dir: opens regular files beneath itself, and says why not otherwise") {
  const Scratch scratch;
  const auto name = [&](std::uint32_t n) { return scratch / file_name_of({1, n}); };
  write_file(name(0), 1234);
  std::filesystem::create_directory(name(1));
  REQUIRE(mkfifo(name(2).c_str(), 0600) == 0);
  std::filesystem::create_symlink(name(0), name(3));
  REQUIRE(mknod(name(4).c_str(), S_IFSOCK | 0600, 0) == 0);
  const auto dir = SampleDir::open(scratch.path());
  REQUIRE(dir.has_value());
  SampleFile file;
  CHECK(dir->open_recording({1, 0}, file) == 0);
  CHECK(file.size == 1234);
  CHECK(file.inode != 0);
  CHECK(dir->open_recording({1, 1}, file) == -EISDIR);
  CHECK(dir->open_recording({1, 2}, file) == -ENXIO);  // a FIFO, and it did not block
  CHECK(dir->open_recording({1, 3}, file) == -ELOOP);
  CHECK(dir->open_recording({1, 4}, file) == -ENXIO);
  CHECK(dir->open_recording({1, 5}, file) == -ENOENT);
  CHECK_FALSE(SampleDir::open(scratch / "missing").has_value());
  CHECK_FALSE(SampleDir::open(name(0)).has_value());
}

TEST_CASE("sigbus guard: copies what is there, and stops at the page that is not") {
  install_sigbus_handler();
  const Scratch scratch;
  const std::string path = scratch / "file";
  write_file(path, 3 * 4096);
  const shm::UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
  const auto mapping = shm::Mapping::create(fd.get(), 0, 3 * 4096, shm::Access::kReadOnly, path);
  REQUIRE(mapping.has_value());
  const std::span<const std::byte> map(mapping->data(), mapping->size());
  std::vector<std::byte> target(3 * 4096);

  CHECK(guarded_copy(target.data(), map.first(2 * 4096), map) == 2 * 4096);

  REQUIRE(ftruncate(fd.get(), 4096 + 100) == 0);
  std::fill(target.begin(), target.end(), std::byte{0});
  CHECK(guarded_copy(target.data(), map, map) ==
        2 * 4096);  // the second page exists, its tail reads as zeroes
  CHECK(target[4096 + 99] == std::byte{'x'});
  CHECK(target[4096 + 100] == std::byte{0});

  REQUIRE(ftruncate(fd.get(), 0) == 0);
  CHECK(guarded_copy(target.data(), map, map) == 0);
}

TEST_CASE(
    "closing: closes what it was given and nothing that lies between, together or when there is no more "
    "room") {
  std::vector<shm::UniqueFd> files(40);
  for (shm::UniqueFd& file : files) file.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto is_open = [](int fd) { return fcntl(fd, F_GETFD) >= 0; };
  const std::size_t runs =
      GENERATE(std::size_t{1}, std::size_t{3}, std::size_t{100});  // every so many-th is not to be closed
  std::vector<int> closed;
  {
    Closing closing;
    for (std::size_t i = 0; i < files.size(); ++i) {
      if (i % runs == runs - 1) continue;
      closed.push_back(files[i].get());
      closing.add(std::move(files[i]));
    }
    const auto still_open = std::ranges::count_if(closed, is_open);
    CHECK(still_open <= 16);
    closing.close_all();
    CHECK(std::ranges::none_of(closed, is_open));
    closing.close_all();
    closing.add(shm::UniqueFd());
  }
  for (const shm::UniqueFd& file : files)
    if (file) CHECK(is_open(file.get()));
}

TEST_CASE("file maps: many readers of a recording share a map, which does not outlive the last for long") {
  const Scratch scratch;
  write_file(scratch / file_name_of({1, 1}), 10 * 4096);
  const auto dir = SampleDir::open(scratch.path());
  REQUIRE(dir.has_value());
  const auto open_file = [&] {
    SampleFile file;
    REQUIRE(dir->open_recording({1, 1}, file) == 0);
    file.end = file.size;
    return file;
  };
  FileMaps maps;
  std::uint64_t now_ns = 1;
  CHECK(maps.let_go_of_idle(now_ns) == -1);
  SampleFile file = open_file();
  for (std::uint32_t reader = 1; reader < FileMaps::kReadersBeforeMap; ++reader)
    CHECK(maps.count_reader(file, now_ns) == nullptr);
  file.map = maps.count_reader(file, now_ns);
  REQUIRE(file.map != nullptr);
  CHECK(file.map->size() == file.size);
  CHECK(maps.count_reader(file, now_ns) == file.map);

  write_file(scratch / file_name_of({1, 1}),
             20 * 4096);  // it has grown: who reads the new end gets all of it
  SampleFile longer = open_file();
  longer.map = maps.count_reader(longer, now_ns);
  REQUIRE(longer.map != nullptr);
  CHECK(longer.map->size() == 20 * 4096);
  CHECK(file.map->data()[0] == std::byte{'x'});  // and who has the shorter one keeps it

  const std::weak_ptr<const shm::Mapping> map = longer.map;
  now_ns += 10 * FileMaps::kLingerNs;
  CHECK(maps.let_go_of_idle(now_ns) > 0);
  longer.map.reset();
  now_ns += FileMaps::kLingerNs;
  CHECK(maps.let_go_of_idle(now_ns) > 0);
  CHECK_FALSE(map.expired());
  now_ns += 1;
  CHECK(maps.let_go_of_idle(now_ns) == -1);
  CHECK(map.expired());
  CHECK(maps.count_reader(file, now_ns) == nullptr);  // it starts anew
}

// The machine may drop its caches at any moment, but not what is locked.
class HeldInMemory {
 public:
  explicit HeldInMemory(const std::string& path) {
    const shm::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    map_ = shm::Mapping::create(fd.get(), 0, std::filesystem::file_size(path), shm::Access::kReadOnly, path)
               .value();
    hold();
  }
  void hold() const { REQUIRE(mlock(map_.data(), map_.size()) == 0); }

 private:
  shm::Mapping map_;
};

TEST_CASE("page cache: who reads a little of a recording gets no map of it, however often") {
  const Scratch scratch;
  write_file(scratch / file_name_of({1, 1}), FileMaps::kLeastBytes);
  const HeldInMemory held(scratch / file_name_of({1, 1}));
  const auto dir = SampleDir::open(scratch.path());
  REQUIRE(dir.has_value());
  PageCache cache;
  const auto is_hot_for = [&](std::uint64_t bytes) {
    SampleFile file;
    REQUIRE(dir->open_recording({1, 1}, file) == 0);
    REQUIRE(file.residency_known);
    file.end = bytes;
    return cache.is_hot(file);
  };
  for (std::uint32_t reader = 0; reader < 2 * FileMaps::kReadersBeforeMap; ++reader)
    CHECK_FALSE(is_hot_for(FileMaps::kLeastBytes - 1));
  for (std::uint32_t reader = 1; reader < FileMaps::kReadersBeforeMap; ++reader)
    CHECK_FALSE(is_hot_for(FileMaps::kLeastBytes));
  CHECK(is_hot_for(FileMaps::kLeastBytes));
  CHECK_FALSE(is_hot_for(FileMaps::kLeastBytes - 1));  // nor one that others have
}

// A recording that another thread cuts short when it is told to. Only the reader makes it whole again, and
// only between two reads: a file that is cut and regrown within one read is outside the promise
// (DESIGN, 3.6).
class CutFile {
 public:
  static constexpr std::size_t kBytes = 2 << 20;

  explicit CutFile(const std::string& path) : fd_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    restore_from(0);
    cutter_ = std::thread([this] { run(); });
  }
  ~CutFile() {
    request_ = kStop;
    cutter_.join();
  }
  CutFile(const CutFile&) = delete;
  CutFile& operator=(const CutFile&) = delete;

  void cut(std::int64_t at) { request_ = at; }
  void wait_for_cut() const {
    while (request_ != kNone) std::this_thread::yield();
  }
  void restore_from(std::size_t at) {
    REQUIRE(pwrite(fd_.get(), whole_.data() + at, kBytes - at, static_cast<off_t>(at)) ==
            static_cast<ssize_t>(kBytes - at));
  }

 private:
  static constexpr std::int64_t kNone = -1;
  static constexpr std::int64_t kStop = -2;

  void run() {
    for (;;) {
      const std::int64_t at = request_;
      if (at == kStop) return;
      if (at == kNone) {
        std::this_thread::yield();
        continue;
      }
      if (ftruncate(fd_.get(), at) != 0) std::abort();
      request_ = kNone;
    }
  }

  const shm::UniqueFd fd_;
  const std::string whole_ = std::string(kBytes, 'x');
  std::atomic<std::int64_t> request_ = kNone;
  std::thread cutter_;
};

// A recording that the page cache has mapped, and reads of it.
struct HotRecording {
  static constexpr std::uint32_t kSlots = 8;
  static constexpr std::uint32_t kBytes = kSlots * shm::kSlotBytes;

  explicit HotRecording(const std::string& directory) : held(directory + "/" + file_name_of({1, 1})) {
    const auto dir = SampleDir::open(directory);
    REQUIRE(dir.has_value());
    for (std::uint32_t reader = 0; reader < FileMaps::kReadersBeforeMap; ++reader) {
      file = SampleFile();
      REQUIRE(dir->open_recording({1, 1}, file) == 0);
      file.end = file.size;
      static_cast<void>(cache.is_hot(file));
    }
    map = file.map;
    REQUIRE(map != nullptr);
    operation.kind = Operation::Kind::kRead;
    operation.file = &file;
    operation.length = kBytes;
    operation.slot_count = kSlots;
    for (std::uint32_t i = 0; i < kSlots; ++i) operation.targets[i] = &target[i * shm::kSlotBytes];
  }
  HotRecording(const HotRecording&) = delete;
  HotRecording& operator=(const HotRecording&) = delete;

  std::int64_t read(std::uint64_t offset) {
    file.map = map;
    operation.offset = offset;
    return PageCache::read_hot(operation);
  }
  // As if the recording were another user's, and the kernel had taken its pages out of the page table.
  void become_unknown() {
    file.residency_known = false;
    file.resident_until = 0;
    madvise(map->data(), map->size(), MADV_DONTNEED);
  }

  PageCache cache;
  SampleFile file;
  std::optional<HeldInMemory> held;
  std::shared_ptr<const shm::Mapping> map;
  std::vector<std::byte> target = std::vector<std::byte>(kBytes);
  Operation operation;
};

TEST_CASE("page cache: copies from a map do not look before each read at what is in memory") {
  if (const auto reason = test::SystemCalls::missing()) return test::skip_or_fail(*reason);
  constexpr std::uint64_t kStretch = 128 * shm::kSlotBytes;
  constexpr std::uint64_t kFileBytes = 8 * kStretch;
  const Scratch scratch;
  write_file(scratch / file_name_of({1, 1}), kFileBytes);
  HotRecording recording(scratch.path());
  const test::SystemCalls calls = test::SystemCalls::of_thread(gettid());
  std::vector<std::uint64_t> costs;
  for (int pass = 0; pass < 10; ++pass) {
    for (std::uint64_t begin = 0; begin < kFileBytes; begin += kStretch) {
      const std::uint64_t before = calls.count();
      for (std::uint64_t at = begin; at < begin + kStretch; at += HotRecording::kBytes)
        REQUIRE(recording.read(at) == HotRecording::kBytes);
      const std::uint64_t cost = calls.count() - before;
      if (begin >= 2 * kStretch) costs.push_back(cost);  // the look ahead has grown to its full length
    }
  }
  // Two calls at best, one look at what is in memory and one at the size. A thread that did not run for 10 ms
  // looks again, and less far ahead at first: seven looks more. A look before each read would be 32 calls.
  std::ranges::sort(costs);
  CHECK(costs[costs.size() / 2] <= 20);
}

TEST_CASE(
    "page cache: a read that was queued while its file was hot goes to the disk when the file no longer is") {
  const Scratch scratch;
  write_file(scratch / file_name_of({1, 1}), 2 * HotRecording::kBytes);
  HotRecording recording(scratch.path());
  REQUIRE(recording.read(0) == HotRecording::kBytes);
  recording.held.reset();
  madvise(recording.map->data(), recording.map->size(), MADV_DONTNEED);
  fsync(recording.file.fd.get());
  posix_fadvise(recording.file.fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  recording.file.resident_until = 0;
  if (presence_of(recording.file.fd.get(), 0, recording.file.size) != Presence::kNone)
    return test::skip_or_fail("the page cache of this file system cannot be emptied or asked");
  CHECK(recording.read(0) == -EAGAIN);
  CHECK(PageCache::read_hot(recording.operation) == -EAGAIN);  // the next one in the queue
}

TEST_CASE(
    "page cache: what has been read of another user's hot recording is copied from its map from then on") {
  const Scratch scratch;
  write_file(scratch / file_name_of({1, 1}), 2 * HotRecording::kBytes);
  HotRecording recording(scratch.path());
  recording.become_unknown();
  CHECK(recording.read(0) == -EAGAIN);
  CHECK(recording.file.map != nullptr);
  REQUIRE(recording.cache.read(recording.operation) == HotRecording::kBytes);
  CHECK(recording.read(0) == HotRecording::kBytes);
  CHECK(std::ranges::count(recording.target, std::byte{'x'}) == HotRecording::kBytes);
  CHECK(recording.read(HotRecording::kBytes) == -EAGAIN);  // of which nothing has been read
  PageCache::learn(recording.operation, -EAGAIN);
  CHECK(recording.file.map == nullptr);
}

TEST_CASE("io_uring: a read that needs the disk after all does not hold up the copies behind it") {
  const Scratch scratch;
  write_file(scratch / file_name_of({1, 1}), 2 * HotRecording::kBytes);
  HotRecording missing(scratch.path());
  HotRecording cached(scratch.path());
  cached.operation.index = 1;
  const auto directory = SampleDir::open(scratch.path());
  const auto doorbells = Doorbells::create();
  const auto engine = IoUringEngine::create(*directory, doorbells->fd(), 4, false);
  if (!engine) return test::skip_or_fail(engine.error().message);
  (*engine)->submit(missing.operation);
  (*engine)->submit(cached.operation);
  missing.become_unknown();
  std::array<Completion, 4> completions;
  REQUIRE((*engine)->reap(completions) == 1);  // at once: nothing else would end the sleep that follows
  CHECK(completions[0].operation == &cached.operation);
  CHECK(completions[0].result == HotRecording::kBytes);
  std::size_t count = 0;
  while (count == 0) {
    static_cast<void>((*engine)->wait(-1));
    count = (*engine)->reap(completions);
  }
  CHECK(completions[0].operation == &missing.operation);
  CHECK(completions[0].result == HotRecording::kBytes);
  // It has left page-table entries behind.
  missing.file.map = missing.map;
  (*engine)->submit(missing.operation);
  REQUIRE((*engine)->reap(completions) == 1);
}

// One read of a file that is cut while it goes on.
struct CutRead {
  CutFile* file = nullptr;
  std::uint32_t moment = 0;  // cut when so much has been shown
  std::uint64_t at = 0;      // to this size
  bool waits = false;        // the read goes on when the file has been cut, or else beside the cut
  std::uint32_t shown_until = 0;
  bool is_cut = false;

  void on_shown(std::uint32_t done) {
    shown_until = done;
    if (done != moment) return;
    is_cut = true;
    file->cut(static_cast<std::int64_t>(at));
    if (waits) file->wait_for_cut();
  }
};
CutRead* read_under_way = nullptr;

TEST_CASE("page cache: what is copied from a map is exact while the file is cut short, at any moment") {
  constexpr std::uint32_t kReadBytes = HotRecording::kBytes;
  constexpr std::uint32_t kPieceBytes = 2 * shm::kSlotBytes;  // what a copy shows at a time
  constexpr std::uint64_t kPage = 4096;
  const Scratch scratch;
  CutFile cut_file(scratch / file_name_of({1, 1}));
  HotRecording recording(scratch.path());
  recording.operation.copied = [](Operation&, std::uint32_t done) { read_under_way->on_shown(done); };
  const auto zeroes_in = [&](std::uint32_t length) {
    return memchr(recording.target.data(), 0, length) != nullptr;
  };

  std::mt19937 random(1);
  const auto pick = [&](std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(random);
  };
  // A read that waits for a cut in the last page of its next piece copies zeroes up to the end of that piece,
  // and only what lies behind it (the next page; behind a read, also the file's size) can tell.
  int caught_in_piece = 0;
  int caught_at_end = 0;
  int beside = 0;  // cuts beside the copy, at any moment
  for (std::uint64_t i = 0; i < 100'000 && (caught_in_piece < 300 || caught_at_end < 100 || beside < 1000);
       ++i) {
    const std::uint64_t offset = i % (CutFile::kBytes / kReadBytes) * kReadBytes;
    CutRead read = {.file = &cut_file,
                    .moment = static_cast<std::uint32_t>(pick(1, kReadBytes / kPieceBytes - 1) * kPieceBytes),
                    .waits = pick(0, 1) == 0};
    const std::uint64_t next_piece_end = offset + read.moment + kPieceBytes;
    read.at = read.waits ? pick(next_piece_end - kPage + 1, next_piece_end - 1)
                         : pick(offset + 1, offset + kReadBytes - 1);
    read_under_way = &read;
    std::ranges::fill(recording.target, std::byte{'x'});
    const std::int64_t result = recording.read(offset);
    cut_file.wait_for_cut();
    if (read.is_cut) cut_file.restore_from(read.at);
    const auto copied = static_cast<std::uint32_t>(std::max<std::int64_t>(result, 0));
    CAPTURE(i, offset, read.moment, read.at, read.waits, result, read.shown_until);
    REQUIRE_FALSE(zeroes_in(std::max(copied, read.shown_until)));
    if (!read.is_cut) {  // the kernel had reclaimed some of what restore_from() had written
      recording.held->hold();
      continue;
    }
    if (!read.waits) {
      ++beside;
    } else {
      REQUIRE(result == static_cast<std::int64_t>(read.at - offset));
      REQUIRE(zeroes_in(kReadBytes));
      ++(read.moment + kPieceBytes < kReadBytes ? caught_in_piece : caught_at_end);
    }
  }
  CHECK(caught_in_piece >= 300);
  CHECK(caught_at_end >= 100);
  CHECK(beside >= 1000);
}

TEST_CASE("file maps: no more than a bound, the one that was used last stays") {
  const Scratch scratch;
  FileMaps maps;
  SampleFile file;
  for (std::uint32_t i = 0; i <= FileMaps::kMaxFiles; ++i) {
    file.inode = i;
    CHECK(maps.count_reader(file, i + 1) == nullptr);
  }
  write_file(scratch / file_name_of({1, 1}), 4096);
  file.fd.reset(open((scratch / file_name_of({1, 1})).c_str(), O_RDONLY | O_CLOEXEC));
  file.size = file.end = 4096;
  for (const std::uint64_t inode : {std::uint64_t{FileMaps::kMaxFiles}, std::uint64_t{0}}) {
    file.inode = inode;
    for (std::uint32_t reader = 2; reader < FileMaps::kReadersBeforeMap; ++reader)
      CHECK(maps.count_reader(file, 1000) == nullptr);
    CHECK((maps.count_reader(file, 1000) == nullptr) == (inode == 0));  // 0 was forgotten
  }
}

TEST_CASE("sigbus guard: a SIGBUS from anywhere else still kills") {
  const Scratch scratch;
  const std::string path = scratch / "file";
  write_file(path, 4096);
  const pid_t child = fork();
  if (child == 0) {
    install_sigbus_handler();
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    auto* const map = static_cast<const volatile char*>(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0));
    if (ftruncate(fd, 0) != 0) _exit(3);
    static_cast<void>(map[0]);
    _exit(4);  // not reached
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGBUS);
}

TEST_CASE(
    "listener: takes over a dead daemon's socket, never a live one's nor a file, and removes only its own") {
  const Scratch scratch;
  const std::string path = scratch / "socket";
  {
    auto listener = Listener::create(path, false);
    REQUIRE(listener.has_value());
    struct stat st = {};
    REQUIRE(stat(path.c_str(), &st) == 0);
    CHECK((st.st_mode & 0777) == 0600);
    const auto second = Listener::create(path, false);
    REQUIRE_FALSE(second.has_value());
    CHECK(second.error().code == Code::kAlreadyExists);
    const auto client = shm::connect_socket(path, shm::now_ns() + shm::kSecond);
    REQUIRE(client.has_value());
    const auto accepted = listener->accept();
    REQUIRE(accepted.has_value());
    REQUIRE(accepted->has_value());
    CHECK((*accepted)->identity.pid == getpid());
    CHECK((*accepted)->identity.uid == geteuid());
  }
  CHECK_FALSE(std::filesystem::exists(path));

  {  // left behind by a dead daemon
    const shm::UniqueFd dead(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    REQUIRE(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  }
  auto listener = Listener::create(path, true);
  REQUIRE(listener.has_value());
  struct stat st = {};
  REQUIRE(stat(path.c_str(), &st) == 0);
  CHECK((st.st_mode & 0777) == 0666);

  std::filesystem::remove(path);  // somebody else's now
  write_file(path, 10);
  listener->unlink_if_ours();
  CHECK(std::filesystem::exists(path));
  const auto refused = Listener::create(path, false);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::kFailedPrecondition);
  CHECK(std::filesystem::file_size(path) == 10);
}

}  // namespace
}  // namespace nvr::daemon
