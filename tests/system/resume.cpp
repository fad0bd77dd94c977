// Clients that asked for resume: what a daemon that goes and comes back, or another in its place, means to
// them.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <thread>

#include "tests/support/asleep.h"
#include "tests/support/client_process.h"
#include "tests/support/laboratory.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"
#include "tests/support/twin.h"

namespace nvr::test {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kForEver = milliseconds::max();
constexpr std::uint32_t kWindow = 4;
constexpr ConnectOptions kResuming = {.streams = 4, .slots_per_stream = kWindow, .resume = kForEver};

// An ext4 whose inodes have no room for a birth time, mounted at `directory`.
class OldFileSystem {
 public:
  explicit OldFileSystem(std::string directory) : directory_(std::move(directory)) {
    run({"/bin/truncate", "--size", "64M", image_});
    run({"/sbin/mkfs.ext4", "-q", "-F", "-I", "128", image_});
    run({"/bin/mount", "-o", "loop", image_, directory_});
  }
  ~OldFileSystem() { umount2(directory_.c_str(), MNT_DETACH); }
  OldFileSystem(const OldFileSystem&) = delete;
  OldFileSystem& operator=(const OldFileSystem&) = delete;

 private:
  static void run(const std::vector<std::string>& argv) {
    const ProgramResult result = run_program(argv);
    if (result.exit.code != 0) throw TestFailure(argv[0] + ": " + result.errors);
  }

  TempDir root_;
  std::string image_ = root_ / "image";
  std::string directory_;
};

struct AwayOptions {
  ConnectOptions connect = kResuming;
  milliseconds follow{0};
  bool has_birth_times = true;
};

// A client in the middle of a recording whose daemon has gone: `taken` chunks have been checked.
struct Away {
  Site site;
  std::optional<OldFileSystem> file_system;
  RecordingFile file;
  std::optional<DaemonProcess> daemon;
  std::optional<Client> client;
  std::optional<Stream> stream;
  ChunkChecker checker = ChunkChecker({}, 0, 0);

  explicit Away(const ConnectOptions& options = kResuming) : Away(AwayOptions{.connect = options}) {}
  explicit Away(const AwayOptions& options) {
    if (!options.has_birth_times) file_system.emplace(site.directory());
    file = site.record({1, 1}, 100 * kChunkBytes + 77);
    checker = ChunkChecker(file, 0, file.size);
    daemon.emplace(site.start());
    client.emplace(connect_to(*daemon, options.connect));
    stream.emplace(open_stream(*client, {.recording = file.id, .follow = options.follow}));
    for (int i = 0; i < 3; ++i) take();
    // Two more, at least, are there to be taken.
    REQUIRE(wait_until([&] { return daemon->total("chunks") >= 5; }));
    daemon->kill();
  }
  void take() {
    auto next = stream->next();
    REQUIRE(code_of(next) == Code::kOk);
    REQUIRE(next);
    REQUIRE(checker.accept(**next));
  }
  // Takes what the daemon had published, so that there is nothing to do but wait.
  void take_what_is_there() {
    for (;;) {
      const auto next = stream->next(in(milliseconds(1)));
      REQUIRE(next);
      if (!*next) {
        REQUIRE(next->error().code == Code::kDeadlineExceeded);
        if (next->error().message.find("the daemon has been away for") != std::string::npos) return;
      } else {
        REQUIRE(checker.accept(**next));
      }
    }
  }
  void come_back() { daemon.emplace(site.start()); }
  void must_complete() {
    const Outcome rest = drain(*stream, &checker);
    CHECK(rest.problem == "");
    CHECK_FALSE(rest.error.has_value());
    CHECK(checker.is_complete());
  }
  void must_end_with(Code code, const std::string& text) {
    const Outcome rest = drain(*stream, &checker);
    CHECK(rest.problem == "");
    REQUIRE(rest.error.has_value());
    CHECK(rest.error->code == code);
    CHECK_THAT(rest.error->message, Catch::Contains(text));
    CHECK_FALSE(stream->next().has_value());
  }
};

// Reads its recording again and again, from somewhere on, until the file `enough` is there.
void read_on_and_on(const std::string& socket, const RecordingFile& file, std::uint64_t seed,
                    const std::string& enough, const Reporter& reporter) {
  Random random(seed);
  Client client = connect_to(socket, {.streams = 2, .slots_per_stream = 16, .resume = kForEver});
  reporter.line("connected");
  std::uint64_t passes = 0;
  for (; passes == 0 || !std::filesystem::exists(enough); ++passes) {
    const std::uint64_t begin = pick(random, 0, file.size / 4);
    Stream stream = open_stream(client, file, begin, passes % 2 == 0 ? kToEnd : file.size);
    ChunkChecker checker(file, begin, file.size);
    std::vector<Chunk> held;  // some of them over the restarts
    while (auto next = stream.next()) {
      if (!*next) throw TestFailure(to_string(next->error()));
      Reporter::require(checker.accept(**next), checker.problem());
      if (held.size() < 4)
        held.push_back(std::move(**next));
      else if (pick(random, 0, 9) == 0)
        held.erase(held.begin());
      if (pick(random, 0, 3) == 0) std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    Reporter::require(checker.is_complete(), "ended too early");
    for (const Chunk& chunk : held)
      Reporter::require(file.difference(chunk.offset(), chunk.bytes()).empty(), "a held chunk has changed");
  }
  reporter.line(std::to_string(passes));
}

TEST_CASE("16 clients read on exactly while their daemon is killed and replaced again and again") {
  constexpr int kClients = 16;
  constexpr int kRestarts = scaled(50, 12);
  const Site site;
  const std::string enough = site.root() / "enough";
  // A window of 16 slots for each of 2 streams is 2 MiB and some: the third gives less than they ask for.
  const std::vector<std::vector<std::string>> kinds = {{},
                                                       {"--client-memory", "64MiB", "--max-clients", "20"},
                                                       {"--client-memory", "1200KiB"},
                                                       {"--total-memory", "100MiB"}};
  std::optional<DaemonProcess> daemon(site.start());
  std::vector<ClientProcess> clients;
  for (std::uint32_t i = 0; i < kClients; ++i) {
    const RecordingFile file = site.record({1, i}, (60 + 5 * i) * kChunkBytes + i);
    clients.push_back(ClientProcess::start([&, file, i](const Reporter& reporter) {
      read_on_and_on(site.socket(), file, test_seed() + i, enough, reporter);
    }));
  }
  for (ClientProcess& client : clients) REQUIRE(client.next_line() == "connected");
  std::uint64_t chunks = 0;
  for (int i = 1; i <= kRestarts; ++i) {
    CAPTURE(i);
    // All are there, and have been served something.
    REQUIRE(daemon->wait_for_total("connections_now", kClients));
    REQUIRE(wait_until([&] { return daemon->total("chunks") >= 4 * kClients; }));
    chunks += daemon->total("chunks");
    CHECK(daemon->total("violations") == 0);
    if (i % 2 == 0)
      daemon->kill();
    else
      CHECK(to_string(daemon->terminate()) == "exit 0");
    std::this_thread::sleep_for(milliseconds(pick(test_random(), 0, 20)));
    daemon.emplace(site.start(kinds[static_cast<std::size_t>(i) % kinds.size()]));
  }
  REQUIRE(daemon->wait_for_total("connections_now", kClients));
  write_file(enough, "");
  std::uint64_t passes = 0;
  for (ClientProcess& client : clients) {
    passes += std::stoull(client.next_line());
    CHECK(client.failure() == "");
  }
  CHECK(daemon->wait_for_total("connections_now", 0));
  WARN(kRestarts << " restarts under " << kClients << " clients: " << passes
                 << " recordings read, all bytes exact, " << chunks << " chunks");
}

TEST_CASE("without resume a killed daemon is one Unavailable, whatever comes after", "[once]") {
  Away away({.streams = 4, .slots_per_stream = kWindow});
  away.come_back();
  away.must_end_with(Code::kUnavailable, "");
  const auto again = away.client->open({.recording = away.file.id});
  CHECK(again.error().code == Code::kUnavailable);
}

TEST_CASE("a stream goes on where it was, and its held chunks stay readable", "[once]") {
  Away away;
  std::vector<Chunk> held;
  for (int i = 0; i < 2; ++i) {
    auto next = away.stream->next();
    REQUIRE(code_of(next) == Code::kOk);
    REQUIRE(away.checker.accept(**next));
    held.push_back(std::move(**next));
  }
  away.take_what_is_there();
  away.come_back();
  for (int i = 0; i < 20; ++i) away.take();
  for (const Chunk& chunk : held) CHECK(away.file.difference(chunk.offset(), chunk.bytes()) == "");
  held.clear();  // gives slots back to a daemon that is no more
  away.must_complete();
  CHECK(problem_reading(*away.client, away.file) == "");
  CHECK(away.daemon->total("violations") == 0);
  CHECK(away.daemon->total("connections_now") == 1);
}

TEST_CASE("blocked readers all go on, by one connection", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 60 * kChunkBytes + 5);
  std::optional<DaemonProcess> daemon(site.start());
  Client client = connect_to(*daemon, kResuming);
  for (int round = 0; round < 5; ++round) {
    CAPTURE(round);
    REQUIRE(problem_reading(client, file) == "");
    daemon->stop();  // so that nothing is published, and all wait
    std::vector<std::string> problems(4);
    std::vector<std::thread> threads;
    std::array<std::atomic<pid_t>, 4> ids = {};
    for (std::size_t i = 0; i < problems.size(); ++i) {
      threads.emplace_back([&, i] {
        Stream stream = open_stream(client, file);
        ids[i] = gettid();
        problems[i] = problem_reading(stream, file, 0, file.size);
      });
    }
    const bool all_asleep = wait_until([&] { return std::ranges::all_of(ids, is_asleep_on_futex); });
    daemon->kill();
    daemon.emplace(site.start());
    for (std::thread& thread : threads) thread.join();
    CHECK(all_asleep);
    for (const std::string& problem : problems) CHECK(problem == "");
    CHECK(daemon->total("connections_now") == 1);
    CHECK(daemon->total("violations") == 0);
  }
}

TEST_CASE("another file in the recording's place is FailedPrecondition, none is NotFound", "[once]") {
  Away away;
  const std::string path = away.file.path;
  std::filesystem::rename(path, path + "-before");  // keeps its inode taken
  SECTION("another inode") {
    const RecordingFile other = away.site.record(away.file.id, away.file.size);
    REQUIRE(other.path == path);
    away.come_back();
    away.must_end_with(Code::kFailedPrecondition, "another file");
  }
  SECTION("shorter than the range") {
    std::filesystem::rename(path + "-before", path);
    std::filesystem::resize_file(path, 50 * kChunkBytes);
    away.come_back();
    away.must_end_with(Code::kFailedPrecondition, std::to_string(50 * kChunkBytes) + " bytes now");
  }
  SECTION("gone") {
    away.come_back();
    away.must_end_with(Code::kNotFound, "does not exist");
  }
  SECTION("the same") {
    std::filesystem::rename(path + "-before", path);
    away.come_back();
    away.must_complete();
  }
  SECTION("longer: the range stays what it was") {
    std::filesystem::rename(path + "-before", path);
    std::filesystem::resize_file(path, away.file.size + 5 * kChunkBytes);
    away.come_back();
    away.must_complete();
  }
  away.stream.reset();
  CHECK(away.daemon->wait_for_total("streams_open", 0));
  CHECK(away.daemon->total("violations") == 0);
}

TEST_CASE("a file that only has the inode number, size and mtime of the recording is another file") {
  const auto follow = GENERATE(milliseconds(0), kForEver);
  Away away(AwayOptions{.follow = follow});
  // The reader has every byte that the daemon before published, and then none.
  if (!replace_by_twin(away.file)) return skip_or_fail("no inode number is given again here");
  away.come_back();
  away.must_end_with(Code::kFailedPrecondition, "created at another time");
  away.stream.reset();
  CHECK(away.daemon->wait_for_total("streams_open", 0));
  CHECK(away.daemon->total("violations") == 0);
}

TEST_CASE("where files have no birth time, one that was modified is another file", "[once]") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  const auto set_mtime = [](const std::string& path, std::time_t seconds) {
    const timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {.tv_sec = seconds, .tv_nsec = 0}};
    REQUIRE(utimensat(AT_FDCWD, path.c_str(), static_cast<const timespec*>(times), 0) == 0);
  };
  SECTION("a complete recording") {
    Away away(AwayOptions{.has_birth_times = false});
    const auto info = away.stream->info();
    REQUIRE(info.has_value());
    REQUIRE(info->birth_ns == 0);
    const auto mtime_s = info->mtime_ns / 1'000'000'000;
    SECTION("the same") {
      away.come_back();
      away.must_complete();
    }
    SECTION("another mtime") {
      REQUIRE(replace_by_twin(away.file));
      set_mtime(away.file.path, mtime_s + 1);
      away.come_back();
      away.must_end_with(Code::kFailedPrecondition, "modified");
    }
    SECTION("longer") {
      std::filesystem::resize_file(away.file.path, away.file.size + 1);
      set_mtime(away.file.path, mtime_s);
      away.come_back();
      away.must_end_with(Code::kFailedPrecondition, std::to_string(away.file.size + 1) + " bytes now");
    }
  }
  SECTION("one that is followed") {
    Away away(AwayOptions{.follow = kForEver, .has_birth_times = false});
    const auto info = away.stream->info();
    REQUIRE(info.has_value());
    const auto mtime_s = info->mtime_ns / 1'000'000'000;
    SECTION("modified later") {
      set_mtime(away.file.path, mtime_s + 1);
      away.come_back();
      away.stream->finish();
      away.must_complete();
    }
    SECTION("modified earlier") {
      REQUIRE(replace_by_twin(away.file));
      set_mtime(away.file.path, mtime_s - 1);
      away.come_back();
      away.must_end_with(Code::kFailedPrecondition, "earlier");
    }
  }
}

TEST_CASE("a file that became shorter beyond the end of the range is another one all the same", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, kResuming);
  Stream stream = open_stream(client, file, 0, 50 * kChunkBytes);
  REQUIRE(code_of(stream.next()) == Code::kOk);
  daemon.kill();
  std::filesystem::resize_file(file.path, 80 * kChunkBytes);
  daemon = site.start();
  const Outcome rest = drain(stream);
  REQUIRE(rest.error.has_value());
  CHECK(rest.error->code == Code::kFailedPrecondition);
}

TEST_CASE("while the daemon is away deadlines are on time, and the stream goes on after them", "[once]") {
  Away away;
  away.take_what_is_there();
  for (const int ms : {0, 1, 50, 300}) {
    const auto begun = Clock::now();
    const auto next = away.stream->next(begun + milliseconds(ms));
    const auto took = Clock::now() - begun;
    REQUIRE(code_of(next) == Code::kDeadlineExceeded);
    CHECK_THAT(next->error().message, Catch::Contains("the daemon has been away for"));
    CHECK(took >= milliseconds(ms));
    CHECK(took < kLongEnough);
  }
  CHECK(code_of(away.stream->try_next()) == Code::kDeadlineExceeded);
  CHECK(away.client->stat(away.file.id, in(milliseconds(20))).error().code == Code::kDeadlineExceeded);
  CHECK_FALSE(away.client->disk_status().stuck);
  away.come_back();
  away.must_complete();
}

TEST_CASE("while the daemon is away cancel, close, drop and the client's end work at once", "[once]") {
  Away away;
  away.take_what_is_there();
  SECTION("cancel and close, of a blocked reader") {
    for (const bool cancel : {true, false}) {
      Stream stream = open_stream(*away.client, away.file);
      std::atomic<pid_t> reader_id = 0;
      std::atomic<bool> is_over = false;
      Code code = Code::kUnknown;
      std::thread reader([&] {
        reader_id = gettid();
        code = code_of(stream.next());
        is_over = true;
      });
      CHECK(wait_until([&] { return is_asleep_on_futex(reader_id); }));
      CHECK_FALSE(is_over);
      if (cancel)
        stream.cancel();
      else
        stream.close();
      CHECK(wait_until([&] { return is_over.load(); }));
      if (!is_over) away.come_back();  // let it end
      reader.join();
      CHECK(code == (cancel ? Code::kCancelled : Code::kOk));
      CHECK_FALSE(stream.next().has_value());
    }
  }
  SECTION("the client's end in the middle of an attempt") {
    // Somebody who accepts and says nothing sits where the daemon was.
    std::filesystem::remove(away.site.socket());
    const shm::UniqueFd mute(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    away.site.socket().copy(address.sun_path, sizeof(address.sun_path) - 1);
    REQUIRE(bind(mute.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    REQUIRE(listen(mute.get(), 1) == 0);
    pollfd called = {.fd = mute.get(), .events = POLLIN, .revents = 0};
    REQUIRE(poll(&called, 1, static_cast<int>(milliseconds(kLongEnough).count())) == 1);
  }
  const auto begun = Clock::now();
  away.stream.reset();
  away.client.reset();
  CHECK(Clock::now() - begun < kLongEnough);
  CHECK(std::ranges::count(threads_of(getpid()), "nvr-resume") == 0);
}

TEST_CASE(
    "a stream opened while the daemon is away is served by the next one, no more than there is room for",
    "[once]") {
  Away away;
  away.take_what_is_there();
  std::vector<Stream> more;
  for (int i = 0; i < 3; ++i) more.push_back(open_stream(*away.client, away.file));
  CHECK(away.client->open({.recording = away.file.id}).error().code == Code::kResourceExhausted);
  CHECK(code_of(more[0].try_next()) == Code::kDeadlineExceeded);
  away.come_back();
  for (Stream& stream : more) CHECK(problem_reading(stream, away.file, 0, away.file.size) == "");
  more.clear();
  more.push_back(open_stream(*away.client, {.recording = {7, 7}}));
  CHECK(code_of(more[0].next()) == Code::kNotFound);
  away.must_complete();
}

TEST_CASE("streams give up after the time that resume allows, and the client does not", "[once]") {
  ConnectOptions options = kResuming;
  options.resume = milliseconds(300);
  Away away(options);
  away.must_end_with(Code::kUnavailable, "has been away for");
  CHECK(away.client->open({.recording = away.file.id}).error().code == Code::kUnavailable);
  CHECK(away.client->dispatch().error().code == Code::kUnavailable);
  away.come_back();
  std::optional<Result<Stream>> stream;
  REQUIRE(wait_until([&] {
    stream.emplace(away.client->open({.recording = away.file.id}));
    return stream->has_value();
  }));
  CHECK(problem_reading(**stream, away.file, 0, away.file.size) == "");
}

TEST_CASE("an event loop goes on with the same descriptor", "[once]") {
  const Site site;
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < 4; ++i) files.push_back(site.record({1, i}, (150 + 5 * i) * kChunkBytes + i));
  std::optional<DaemonProcess> daemon(site.start());
  Client client = connect_to(*daemon, kResuming);
  struct Reading {
    Stream stream;
    ChunkChecker checker;
    bool has_ended = false;
  };
  std::vector<Reading> readings;
  REQUIRE(client.dispatch().has_value());
  for (const RecordingFile& file : files)
    readings.push_back({open_stream(client, file), ChunkChecker(file, 0, file.size)});
  const int handle = client.native_handle();
  std::size_t left = readings.size();
  std::uint64_t taken = 0;
  std::uint64_t next_kill = 60;
  while (left > 0) {
    for (Reading& reading : readings) {
      // A few at a time, so that the daemon's end finds all of them in the middle.
      for (int i = 0; i < 8 && !reading.has_ended; ++i) {
        const auto next = reading.stream.try_next();
        if (!next) {
          reading.has_ended = true;
          --left;
        } else if (*next) {
          REQUIRE(reading.checker.accept(**next));
          ++taken;
        } else {
          REQUIRE(next->error().code == Code::kDeadlineExceeded);
          break;
        }
      }
    }
    if (taken >= next_kill && left == readings.size()) {
      daemon->kill();
      daemon.emplace(site.start());
      next_kill += 120;
    }
    if (left == 0) break;
    REQUIRE(client.native_handle() == handle);
    pollfd entry = {.fd = handle, .events = POLLIN, .revents = 0};
    REQUIRE(poll(&entry, 1, static_cast<int>(milliseconds(kLongEnough).count())) == 1);
    REQUIRE(client.dispatch().has_value());
  }
  for (const Reading& reading : readings) CHECK(reading.checker.is_complete());
  CHECK(next_kill > 200);
}

TEST_CASE("an event loop sleeps while the daemon is away, and hears when it gives up", "[once]") {
  const bool gives_up = GENERATE(false, true);
  ConnectOptions options = kResuming;
  if (gives_up) options.resume = milliseconds(300);
  Away away(options);
  REQUIRE(away.client->dispatch().has_value());
  pollfd entry = {.fd = away.client->native_handle(), .events = POLLIN, .revents = 0};
  if (!gives_up) {
    away.take_what_is_there();
    REQUIRE(away.client->dispatch().has_value());
    CHECK(poll(&entry, 1, 50) == 0);
    return;
  }
  Code code = Code::kOk;
  while ((code = code_of(away.stream->try_next())) != Code::kUnavailable) {
    if (code == Code::kOk) continue;  // what the daemon had published
    REQUIRE(code == Code::kDeadlineExceeded);
    REQUIRE(poll(&entry, 1, static_cast<int>(milliseconds(kLongEnough).count())) == 1);
    static_cast<void>(away.client->dispatch());
  }
  CHECK(away.client->dispatch().error().code == Code::kUnavailable);
  CHECK_FALSE(away.stream->try_next().has_value());
}

TEST_CASE("a child forked while the daemon is away drops everything and harms nothing", "[once]") {
  Away away;
  away.take_what_is_there();
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    away.stream->cancel();
    away.stream.reset();
    away.client.reset();
    _exit(0);
  }
  Process child(pid);
  const auto exit = child.wait();
  REQUIRE(exit.has_value());
  CHECK(to_string(*exit) == "exit 0");
  away.come_back();
  away.must_complete();
}

}  // namespace
}  // namespace nvr::test
