// A forked child has copies of the parent's objects: what it does with them must not reach the parent's
// connection.
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/support/client_process.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint32_t kWindow = 8;

// Forks, runs `body` in the child, and waits for it.
template <class Body>
Exit in_child(Body&& body) {
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    try {
      body();
    } catch (...) {
      _exit(1);
    }
    _exit(0);
  }
  Process child(pid);
  const auto exit = child.wait();
  REQUIRE(exit.has_value());
  return *exit;
}

std::vector<Chunk> hold(Stream& stream, ChunkChecker& checker, std::uint32_t count) {
  std::vector<Chunk> held;
  for (std::uint32_t i = 0; i < count; ++i) {
    auto chunk = stream.next();
    REQUIRE(code_of(chunk) == Code::kOk);
    REQUIRE(checker.accept(**chunk));
    held.push_back(std::move(**chunk));
  }
  return held;
}

TEST_CASE("chunks dropped in a forked child return no slot", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = kWindow});
  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  auto held = hold(stream, checker, kWindow);
  const std::uint64_t chunks = daemon.total("chunks");
  CHECK(to_string(in_child([&] { held.clear(); })) == "exit 0");
  // The daemon got no credit from that: it would have filled the slots by the time it answers.
  CHECK(code_of(stream.next(in(std::chrono::milliseconds(50)))) == Code::kResourceExhausted);
  CHECK(daemon.total("chunks") == chunks);
  CHECK(std::ranges::all_of(
      held, [&](const Chunk& chunk) { return file.difference(chunk.offset(), chunk.bytes()).empty(); }));
  held.clear();
  const Outcome rest = drain(stream, &checker);
  CHECK(rest.problem == "");
  CHECK_FALSE(rest.error.has_value());
  CHECK(checker.is_complete());
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("a forked child that drops everything leaves the parent's connection alone", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  std::optional<Client> client = connect_to(daemon, {.streams = 2, .slots_per_stream = kWindow});
  std::optional<Stream> first = open_stream(*client, file);
  std::optional<Stream> second = open_stream(*client, file);
  ChunkChecker checker(file, 0, file.size);
  auto held = hold(*first, checker, 3);
  for (const bool client_first : {false, true}) {
    const auto exit = in_child([&] {
      if (client_first) client.reset();
      held.clear();
      first.reset();
      second.reset();
      client.reset();
    });
    CHECK(to_string(exit) == "exit 0");
  }
  CHECK(daemon.total("connections_now") == 1);
  held.clear();
  const Outcome rest = drain(*first, &checker);
  CHECK(rest.problem == "");
  CHECK_FALSE(rest.error.has_value());
  CHECK(checker.is_complete());
  CHECK(problem_reading(*second, file, 0, file.size) == "");
  CHECK(problem_reading(*client, file) == "");
  CHECK(daemon.total("violations") == 0);
}

// A child that keeps all it inherited, and does nothing.
Process idle_child() {
  return fork_child([] {
    for (;;) pause();
  });
}

TEST_CASE("a connection that its parent drops ends, though a forked child keeps its descriptors", "[once]") {
  const bool resumes = GENERATE(false, true);
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  ConnectOptions options = {.streams = 1, .slots_per_stream = 2};
  if (resumes) options.resume = std::chrono::milliseconds::max();
  std::optional<Client> client = connect_to(daemon, options);
  std::optional<Stream> stream = open_stream(*client, file);
  auto chunk = stream->next();
  REQUIRE(code_of(chunk) == Code::kOk);
  Process child = idle_child();
  client.reset();
  CHECK(code_of(stream->next()) == Code::kOk);  // the stream keeps the connection
  stream.reset();
  CHECK(daemon.wait_for_total("connections_now", 0));
  CHECK(child.is_running());
  CHECK(file.difference((*chunk)->offset(), (*chunk)->bytes()) == "");
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("a client that is moved over drops its connection, though a forked child keeps its descriptors",
          "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  Process child = idle_child();
  client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  CHECK(daemon.wait_for_total("connections_now", 1));
  CHECK(child.is_running());
}

TEST_CASE("a child that no fork handler told of its birth leaves the parent's connection alone", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  std::optional<Client> client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  const auto pid = static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  REQUIRE(pid >= 0);
  if (pid == 0) {
    client.reset();
    _exit(0);
  }
  Process child(pid);
  const auto exit = child.wait();
  REQUIRE(exit.has_value());
  CHECK(to_string(*exit) == "exit 0");
  CHECK(problem_reading(*client, file) == "");
  CHECK(daemon.total("connections_now") == 1);
}

TEST_CASE("a parent's death is noticed though a forked child keeps its descriptors", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  ClientProcess parent = ClientProcess::start([&](const Reporter& reporter) {
    Client client = connect_to(socket, {.streams = 1, .slots_per_stream = 2});
    Stream stream = open_stream(client, file);
    const auto chunk = stream.next();
    const pid_t child = fork();
    if (child == 0) {
      alarm(scaled(120u, 600u));  // should the test not get to ending it
      for (;;) pause();
    }
    reporter.line(std::to_string(child));
    pause();
  });
  const pid_t child = std::stoi(parent.next_line());
  CHECK(daemon.total("connections_now") == 1);
  parent.signal(SIGKILL);
  parent.reap();
  CHECK(daemon.wait_for_total("connections_now", 0));
  // The memory is the child's to keep, and counts as long.
  CHECK(wait_until([&] { return daemon.total("held_bytes") > 0; }));  // the disk thread has let go of it
  CHECK(daemon.total("held_bytes") == daemon.total("shared_bytes"));
  kill(child, SIGKILL);
  CHECK(daemon.wait_for_total("shared_bytes", 0));
}

}  // namespace
}  // namespace nvr::test
