// Resume: the state that a stream keeps from one daemon to the next, and the state that it must drop.
// Scripted daemons follow each other at the same path; a real one serves where its bounds matter.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "tests/client/scripted_daemon.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using shm::DescriptorKind;
using shm::Opcode;
using std::chrono::milliseconds;

constexpr OpenRequest kRange = {.recording = {1, 1}, .end = kScriptedSize};
constexpr OpenRequest kFollowing = {.recording = {1, 1}, .follow = milliseconds::max()};
constexpr ConnectOptions kResuming = {
    .streams = 1, .slots_per_stream = kScriptedSlots, .timeout = kLongEnough, .resume = milliseconds::max()};

bool is_readable(const Client& client, milliseconds within) {
  pollfd entry = {.fd = client.native_handle(), .events = POLLIN, .revents = 0};
  return poll(&entry, 1, static_cast<int>(within.count())) == 1;
}

struct Scene {
  TempDir root;
  std::optional<ScriptedDaemon> daemon;
  Client client;
  std::optional<Stream> stream;

  explicit Scene(const OpenRequest& request = kRange, const ConnectOptions& options = kResuming)
      : client(connect_to(start().socket(), options)), stream(open_stream(client, request)) {}

  ScriptedDaemon& start() { return daemon.emplace(Welcoming{.socket = root / "socket"}); }
  void take() { REQUIRE(code_of(stream->next(in(kLongEnough))) == Code::kOk); }
  // The daemon goes, and the client notices.
  void lose() {
    daemon->say_goodbye("tea time");
    REQUIRE(client.dispatch().has_value());
    REQUIRE(code_of(stream->try_next()) == Code::kDeadlineExceeded);
  }
  // Another daemon comes, and the stream asks it to go on.
  void replace_daemon() {
    daemon.reset();
    start();
    REQUIRE(wait_until([&] {
      REQUIRE(code_of(stream->try_next()) == Code::kDeadlineExceeded);
      return !daemon->commands().empty();
    }));
  }
};

// ---- Is it the same recording?

TEST_CASE(
    "a file of the same inode on another device, or of another inode on the same, is another recording") {
  const bool is_other_device = GENERATE(true, false);
  Scene scene;
  scene.daemon->publish(opened());
  scene.daemon->publish(chunk(0, 0));
  scene.take();
  scene.lose();
  scene.replace_daemon();
  CHECK(scene.daemon->commands()[0].begin == kChunkBytes);
  shm::Descriptor found = opened();
  (is_other_device ? found.file_device : found.file_inode) = 2;
  scene.daemon->publish(found);
  scene.daemon->publish(chunk(0, kChunkBytes));
  const auto next = scene.stream->next(in(kLongEnough));
  REQUIRE(code_of(next) == Code::kFailedPrecondition);
  CHECK_THAT(next->error().message, Catch::Contains("another file"));
  CHECK_FALSE(scene.stream->next().has_value());
}

TEST_CASE("at resume a file is known by its birth time, or else by its size and mtime") {
  struct Facts {
    std::uint64_t size = kScriptedSize;
    std::int64_t mtime_ns = 0;
    std::int64_t birth_ns = 0;
  };
  struct Row {
    bool follows = false;
    Facts before;
    Facts now;
    const char* difference = nullptr;  // none: it is the same
  };
  constexpr std::uint64_t kLonger = kScriptedSize + 1;
  const auto row = GENERATE_COPY(values<Row>({
      {false, {kScriptedSize, 5, 7}, {kScriptedSize, 5, 7}, nullptr},
      {false, {kScriptedSize, 5, 7}, {kLonger, 6, 7}, nullptr},
      {false, {kScriptedSize, 5, 7}, {kScriptedSize, 5, 8}, "created at another time"},
      {false, {kScriptedSize, 5, -7}, {kScriptedSize, 5, -8}, "created at another time"},
      {false, {kScriptedSize, 5, 0}, {kScriptedSize, 5, 0}, nullptr},
      {false, {kScriptedSize, 5, 0}, {kScriptedSize, 5, 7}, nullptr},  // the daemon is a newer one
      {false, {kScriptedSize, 5, 0}, {kScriptedSize, 6, 7}, "modified"},
      {false, {kScriptedSize, 5, 7}, {kScriptedSize, 4, 0}, "modified"},
      {false, {kScriptedSize, 5, 0}, {kLonger, 5, 0}, "bytes now"},
      {true, {kScriptedSize, 5, 7}, {kLonger, 4, 7}, nullptr},
      {true, {kScriptedSize, 5, 7}, {kLonger, 6, 8}, "created at another time"},
      {true, {kScriptedSize, 5, 0}, {kLonger, 6, 0}, nullptr},
      {true, {kScriptedSize, 5, 7}, {kScriptedSize, 5, 0}, nullptr},
      {true, {kScriptedSize, 5, 0}, {kLonger, 4, 7}, "last modified earlier"},
      {true, {kScriptedSize, 5, 0}, {kScriptedSize - 1, 6, 0}, "bytes now"},
  }));
  const auto descriptor = [](const Facts& facts) {
    shm::Descriptor result = opened(facts.size);
    result.file_mtime_ns = facts.mtime_ns;
    result.offset = static_cast<std::uint64_t>(facts.birth_ns);
    return result;
  };
  Scene scene(row.follows ? kFollowing : kRange);
  scene.daemon->publish(descriptor(row.before));
  scene.daemon->publish(chunk(0, 0));
  scene.take();
  CHECK(scene.stream->info()->birth_ns == row.before.birth_ns);
  scene.lose();
  scene.replace_daemon();
  scene.daemon->publish(descriptor(row.now));
  scene.daemon->publish(chunk(0, kChunkBytes));
  const auto next = scene.stream->next(in(kLongEnough));
  if (row.difference == nullptr) {
    CHECK(code_of(next) == Code::kOk);
  } else {
    REQUIRE(code_of(next) == Code::kFailedPrecondition);
    CHECK_THAT(next->error().message, Catch::Contains(row.difference));
    CHECK_FALSE(scene.stream->next().has_value());
  }
}

TEST_CASE("a stream that lacks nothing but END when its daemon goes is complete") {
  Scene scene;
  scene.daemon->publish(opened());
  for (std::uint16_t i = 0; i < 3; ++i) {
    scene.daemon->publish(chunk(i, i * kChunkBytes));
    scene.take();
  }
  scene.daemon->say_goodbye("tea time");
  CHECK_FALSE(scene.stream->next(in(kLongEnough)).has_value());
}

TEST_CASE("a follower that came to rest before a restart goes on after it") {
  Scene scene(kFollowing);
  scene.daemon->publish(opened());
  scene.daemon->publish(chunk(0, 0, 1000));
  scene.take();
  scene.lose();
  scene.replace_daemon();
  scene.daemon->publish(opened());
  scene.daemon->publish(chunk(0, 1000));
  scene.take();
}

TEST_CASE("finish() while the daemon is away reaches the next one") {
  Scene scene(kFollowing);
  scene.lose();
  scene.stream->finish();
  scene.replace_daemon();
  REQUIRE(scene.daemon->commands().size() == 2);
  CHECK(scene.daemon->commands()[1].opcode == Opcode::kFinish);
}

TEST_CASE("a stream under which every daemon dies is given up, however fast the next one comes") {
  ConnectOptions options = kResuming;
  options.resume = milliseconds(300);
  Scene scene(kRange, options);
  std::atomic<bool> is_over = false;
  std::string why;
  std::thread reader([&] {
    const auto next = scene.stream->next();
    if (next && !*next) why = to_string(next->error());
    is_over = true;
  });
  const bool has_ended = wait_until([&] {
    static_cast<void>(wait_until([&] { return is_over || !scene.daemon->commands().empty(); }));
    scene.daemon.reset();
    scene.start();
    return is_over.load();
  });
  if (!has_ended) scene.stream->cancel();
  reader.join();
  CHECK(has_ended);
  CHECK_THAT(why, Catch::Contains("Unavailable") && Catch::Contains("has been away for"));
}

// ---- Places

TEST_CASE("with resume, refused opens cost no place") {
  Scene scene;
  for (int i = 0; i < 3; ++i) CHECK(scene.client.open(kRange).error().code == Code::kResourceExhausted);
  scene.daemon->publish(opened());
  scene.daemon->publish(terminal(DescriptorKind::kClosed));
  scene.stream.reset();
  CHECK(scene.client.open(kRange).has_value());
}

TEST_CASE("with resume, opens that --fail-fast refused cost no place") {
  Scene scene;
  scene.stream.reset();
  scene.daemon->publish(terminal(DescriptorKind::kClosed));
  scene.daemon->show_disk({}, true);
  for (int i = 0; i < 3; ++i) CHECK(scene.client.open(kRange).error().code == Code::kUnavailable);
  scene.daemon->show_disk({}, false);
  CHECK(scene.client.open(kRange).has_value());
}

TEST_CASE("a stream that learns late of a death leaves the successor alone") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes);
  std::optional<DaemonProcess> daemon(site.start());
  Client client = connect_to(*daemon, {.streams = 2, .slots_per_stream = 4, .resume = milliseconds::max()});
  Stream early = open_stream(client, file);
  Stream late = open_stream(client, file);
  REQUIRE(daemon->wait_for_total("chunks", 8));
  daemon->kill();
  daemon.emplace(site.start());
  const auto id = [&] { return daemon->status()["connections"].at(0)["id"].get<int>(); };
  CHECK(problem_reading(early, file, 0, file.size) == "");
  const int before = id();
  CHECK(problem_reading(late, file, 0, file.size) == "");
  CHECK(id() == before);
  CHECK(daemon->total("violations") == 0);
}

TEST_CASE("a client that a full daemon refuses gets its place, and its window, when there is room") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes);
  std::optional<DaemonProcess> daemon(site.start());
  Client client = connect_to(*daemon, {.streams = 1, .slots_per_stream = 2, .resume = milliseconds::max()});
  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  daemon->kill();
  // The next one has let somebody else in before it can be found at the path.
  DaemonOptions options = site.options({"--max-clients", "1"});
  options.socket = site.root() / "new.sock";
  daemon.emplace(options);
  std::optional<Client> other = connect_to(*daemon);
  std::filesystem::rename(options.socket, site.socket());
  REQUIRE(wait_until([&] {
    const auto next = stream.try_next();
    if (code_of(next) == Code::kOk) {
      REQUIRE(checker.accept(**next));
      return false;
    }
    return next->error().message.find("--max-clients") != std::string::npos;
  }));
  other.reset();
  const Deadline deadline = in(kLongEnough);
  while (auto next = stream.next(deadline)) {
    if (!*next) FAIL(next->error().message);
    REQUIRE(checker.accept(**next));
  }
  CHECK(checker.is_complete());
  std::filesystem::rename(site.socket(), options.socket);  // where the daemon removes it
}

// ---- The process around it

TEST_CASE("after a restart of the daemon the client has as many descriptors as before, and they are quiet") {
  Scene scene;
  REQUIRE(scene.client.dispatch().has_value());
  REQUIRE(scene.daemon->commands().size() == 1);  // its handshake is over, and needs no descriptors any more
  const auto before = descriptors_of(getpid()).size();
  for (int i = 0; i < 2; ++i) {
    scene.lose();
    scene.replace_daemon();
    REQUIRE(is_readable(scene.client, kLongEnough));
    REQUIRE(scene.client.dispatch().has_value());
    CHECK_FALSE(is_readable(scene.client, milliseconds(0)));
    CHECK(descriptors_of(getpid()).size() == before);
  }
}

TEST_CASE("an event loop sleeps while the daemon is away, though a forked child keeps the socket") {
  Scene scene;
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  Process child(pid);
  scene.lose();
  CHECK_FALSE(is_readable(scene.client, milliseconds(20)));
  child.signal(SIGKILL);
  static_cast<void>(child.wait());
}

TEST_CASE("that a disk was stuck is not said of a daemon that has gone") {
  Scene scene;
  scene.daemon->show_disk(
      {.operation = shm::DiskOperation::kRead, .since_ns = 1, .recording = 1, .offset = 4096}, false);
  CHECK(scene.client.disk_status().stuck);
  scene.lose();
  CHECK_FALSE(scene.client.disk_status().stuck);
}

TEST_CASE("the thread that reconnects takes no signals, and leaves the caller's alone") {
  Scene scene;
  sigset_t before;
  sigset_t after;
  REQUIRE(pthread_sigmask(SIG_SETMASK, nullptr, &before) == 0);
  scene.lose();
  REQUIRE(pthread_sigmask(SIG_SETMASK, nullptr, &after) == 0);
  for (int signal = 1; signal < SIGRTMIN; ++signal)
    CHECK(sigismember(&before, signal) == sigismember(&after, signal));
  // The masks of the threads of that name.
  const auto blocked = [] {
    std::vector<std::uint64_t> masks;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      const std::string status = read_file(task.path() / "status");
      const auto mask = status.find("SigBlk:");
      if (status.find("Name:\tnvr-resume\n") != std::string::npos && mask != std::string::npos)
        masks.push_back(std::stoull(status.substr(mask + 7), nullptr, 16));
    }
    return masks;
  };
  REQUIRE(wait_until([&] { return blocked().size() == 1; }));
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGALRM}) {
    CAPTURE(signal);
    CHECK((blocked().at(0) >> (signal - 1) & 1) == 1);
  }
}

}  // namespace
}  // namespace nvr::test
