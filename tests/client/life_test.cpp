// The life of a connection's parts: who keeps what, and who is believed to be alive.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "client/src/connection.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

TEST_CASE("short streams now and then do not make a healthy daemon look dead") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  // Each comes and goes between two beats of the daemon's heart; together they take longer than a dead one is
  // waited for.
  for (int i = 0; i < 12; ++i) {
    const auto info = client.stat(file.id);
    REQUIRE(info.has_value());
    REQUIRE(problem_reading(client, file) == "");
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
}

TEST_CASE("so they do not while a finished stream has not been read to its end") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 3 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 3, .slots_per_stream = 4});
  Stream unread = open_stream(client, file);
  for (int i = 0; i < 12; ++i) {
    REQUIRE(client.stat(file.id).has_value());
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
  CHECK(problem_reading(unread, file, 0, file.size) == "");
}

TEST_CASE("an open that is tried again and again while all streams wait to be read is only refused") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 4});
  Stream unread = open_stream(client, file);
  REQUIRE(daemon.wait_for_total("streams_open", 0));
  // The daemon has nothing open and its heart rests, for longer than a dead one is waited for.
  for (int i = 0; i < 12; ++i) {
    const auto refused = client.open({.recording = file.id});
    REQUIRE_FALSE(refused.has_value());
    REQUIRE(refused.error().code == Code::kResourceExhausted);
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
  CHECK(problem_reading(unread, file, 0, file.size) == "");
}

TEST_CASE("a stopped daemon is given up by a blocked reader") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  REQUIRE(client.stat(file.id).has_value());
  daemon.stop();
  Stream stream = open_stream(client, file);
  CHECK(code_of(stream.next()) == Code::kUnavailable);
  CHECK_FALSE(stream.next().has_value());
  CHECK(client.open({.recording = file.id}).error().code == Code::kUnavailable);
  daemon.go_on();
}

TEST_CASE("a forked child that drops a client keeps what it has mapped since") {
  const Site site;
  const DaemonProcess daemon = site.start();
  std::optional<Client> client = connect_to(daemon, {.streams = 16, .slots_per_stream = 2});
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    // W is not mapped here: the kernel gives its addresses to who asks for some.
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    std::array<void*, 400> pages;
    for (void*& p : pages)
      p = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    client.reset();
    int lost = 0;
    for (void* const p : pages) {
      unsigned char resident = 0;
      lost += mincore(p, page, &resident) != 0 ? 1 : 0;
    }
    _exit(lost == 0 ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

// The doorbell's number must not be another file's while a chunk may ring it. (The thread sanitizer sees more
// of it.)
TEST_CASE("chunks are dropped by one thread while another drops the rest") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 8 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  std::atomic<bool> is_over = false;
  std::atomic<int> written = 0;
  std::thread others([&] {
    while (!is_over) {
      const shm::UniqueFd fd(memfd_create("somebody-elses", MFD_CLOEXEC));
      std::this_thread::sleep_for(std::chrono::microseconds(20));
      if (lseek(fd.get(), 0, SEEK_END) != 0) ++written;
    }
  });
  for (int i = 0; i < scaled(300, 100); ++i) {
    std::optional<Client> client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
    std::optional<Stream> stream = open_stream(*client, file);
    std::vector<Chunk> held;
    for (int k = 0; k < 2; ++k) {
      auto next = stream->next();
      if (code_of(next) == Code::kOk) held.push_back(std::move(**next));
    }
    std::thread dropper([&] { held.clear(); });
    stream.reset();
    client.reset();
    dropper.join();
  }
  is_over = true;
  others.join();
  CHECK(written == 0);
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("assignment: a chunk to itself stays, a client's connection before ends at once") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 3 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 4});
  {
    Stream stream = open_stream(client, file);
    auto next = stream.next();
    REQUIRE(code_of(next) == Code::kOk);
    Chunk& chunk = **next;
    Chunk& same = chunk;
    chunk = std::move(same);
    CHECK(file.difference(chunk.offset(), chunk.bytes()) == "");
  }
  Client other = connect_to(daemon, {.streams = 1, .slots_per_stream = 4});
  CHECK(daemon.wait_for_total("connections_now", 2));
  client = std::move(other);
  CHECK(daemon.wait_for_total("connections_now", 1));
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("a timeout of for ever is one") {
  const Site site;
  const DaemonProcess daemon = site.start();
  CHECK(Client::connect(daemon.socket(), {.timeout = std::chrono::milliseconds::max()}).has_value());
  const auto at_once = Client::connect(daemon.socket(), {.timeout = std::chrono::milliseconds::min()});
  CHECK((at_once || at_once.error().code == Code::kUnavailable));
}

}  // namespace
}  // namespace nvr::test
