// Who may connect, and what a client can and cannot do with the memory that it gets.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>

#include "shm/clock.h"
#include "shm/socket.h"
#include "tests/support/client_process.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr uid_t kStranger = 65533;

// The handshake by hand, to get at the descriptors.
struct RawConnection {
  shm::UniqueFd socket;
  shm::Greeting greeting;

  explicit RawConnection(const std::string& path) {
    const std::uint64_t deadline_ns = shm::now_ns() + 30'000'000'000;
    auto connected = shm::connect_socket(path, deadline_ns);
    if (!connected) throw TestFailure(to_string(connected.error()));
    socket = std::move(*connected);
    auto greeted = shm::greet(socket.get(), 2, 2, deadline_ns);
    if (!greeted) throw TestFailure(to_string(greeted.error()));
    greeting = std::move(*greeted);
    if (auto ready = shm::send_message(socket.get(), shm::Ready{}); !ready)
      throw TestFailure(to_string(ready.error()));
  }
  [[nodiscard]] int r() const { return greeting.descriptors.at(0).get(); }
  [[nodiscard]] int w() const { return greeting.descriptors.at(1).get(); }
};

// Fails for R in the way that it should. Empty if so.
std::string problem_with_writing(int fd, std::uint64_t bytes) {
  void* const map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map != MAP_FAILED) return "mapped writable";
  if (errno != EPERM && errno != EACCES) return std::string("mmap: ") + strerror(errno);
  const char byte = 1;
  if (pwrite(fd, &byte, 1, 4096) >= 0) return "written";
  if (ftruncate(fd, 4096) == 0) return "shrunk";
  if (ftruncate(fd, static_cast<off_t>(2 * bytes)) == 0) return "grown";
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0) return "punched";
  return "";
}

TEST_CASE("R can be mapped read-only and in no other way", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  const RawConnection connection(daemon.socket());
  const std::uint64_t bytes = connection.greeting.welcome.read_bytes;
  CHECK(problem_with_writing(connection.r(), bytes) == "");

  const std::string path = "/proc/self/fd/" + std::to_string(connection.r());
  const shm::UniqueFd reopened(
      open(path.c_str(), O_RDWR | O_CLOEXEC));  // root may open it; the seal holds all the same
  if (reopened) CHECK(problem_with_writing(reopened.get(), bytes) == "");

  void* const map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, connection.r(), 0);
  REQUIRE(map != MAP_FAILED);
  CHECK(mprotect(map, bytes, PROT_READ | PROT_WRITE) != 0);
  munmap(map, bytes);

  const int seals = fcntl(connection.r(), F_GET_SEALS);
  const int wanted = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  CHECK((seals & wanted) == wanted);
}

TEST_CASE("W cannot be truncated or grown or sealed further", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  const RawConnection connection(daemon.socket());
  const auto bytes = static_cast<off_t>(connection.greeting.welcome.write_bytes);
  CHECK(ftruncate(connection.w(), 0) != 0);
  CHECK(ftruncate(connection.w(), 2 * bytes) != 0);
  CHECK(fcntl(connection.w(), F_ADD_SEALS, F_SEAL_WRITE) != 0);
}

TEST_CASE("a client's mappings of R are read-only and it holds no sample file", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  ClientProcess client = ClientProcess::start([&](const Reporter& reporter) {
    Client connection = connect_to(socket, {.streams = 3, .slots_per_stream = 8});
    Stream stream = open_stream(connection, file);
    const auto chunk = stream.next();
    Reporter::require(code_of(chunk) == Code::kOk, "no chunk");
    reporter.line(std::to_string(reinterpret_cast<std::uintptr_t>((*chunk)->bytes().data())));
    pause();
  });
  const std::uint64_t address = std::stoull(client.next_line());
  const auto mappings = mappings_of(client.pid());
  const auto r = std::ranges::find_if(
      mappings, [&](const MapEntry& entry) { return entry.begin <= address && address < entry.end; });
  REQUIRE(r != mappings.end());
  CHECK(r->permissions == "r--s");
  const auto same = std::ranges::count_if(mappings, [&](const MapEntry& entry) {
    return entry.name == r->name && entry.permissions.starts_with("rw");
  });
  const auto all =
      std::ranges::count_if(mappings, [&](const MapEntry& entry) { return entry.name == r->name; });
  CHECK(same < all);
  CHECK(mappings_beneath(client.pid(), site.directory()) == 0);
  CHECK(descriptors_beneath(client.pid(), site.directory()) == 0);
  client.signal(SIGKILL);
}

TEST_CASE("by default only the daemon's own user and root may connect", "[once]") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  ClientProcess stranger = ClientProcess::start(
      [&](const Reporter&) {
        auto client = Client::connect(socket);
        Reporter::require(!client, "admitted");
        Reporter::require(client.error().code == Code::kPermissionDenied &&
                              client.error().message.find("--allow-uid") != std::string::npos,
                          to_string(client.error()));
      },
      kStranger);
  CHECK(stranger.failure() == "");
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("allow-uid admits that user and no other", "[once]") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const DaemonProcess daemon = site.start({"--allow-uid", std::to_string(kNobody)});
  const std::string socket = daemon.socket();
  ClientProcess friendly = ClientProcess::start(
      [&](const Reporter&) {
        Client client = connect_to(socket);
        const std::string problem = problem_reading(client, file);
        Reporter::require(problem.empty(), problem);
      },
      kNobody);
  CHECK(friendly.failure() == "");
  ClientProcess stranger = ClientProcess::start(
      [&](const Reporter& reporter) {
        auto client = Client::connect(socket);
        Reporter::require(!client, "admitted");
        Reporter::require(client.error().code == Code::kPermissionDenied, to_string(client.error()));
        reporter.line(client.error().message);
      },
      kStranger);
  CHECK(stranger.next_line().find(std::to_string(kStranger)) != std::string::npos);
  CHECK(stranger.failure() == "");
}

TEST_CASE("a daemon of another user serves its own user and root", "[once]") {
  if (geteuid() != 0) return skip_or_fail("running the daemon as another user needs root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  REQUIRE(mkdir((site.root() / "run").c_str(), 0755) == 0);
  REQUIRE(chown((site.root() / "run").c_str(), kNobody, kNobody) == 0);
  DaemonOptions options = site.options();
  options.socket = site.root() / "run/reader.sock";
  options.uid = kNobody;
  const DaemonProcess daemon(options);
  Client root = connect_to(daemon);
  CHECK(problem_reading(root, file) == "");
  // Not even its own user can get at its memory through /proc.
  const std::string proc = "/proc/" + std::to_string(daemon.pid());
  const std::string socket = daemon.socket();
  ClientProcess same_user = ClientProcess::start(
      [&](const Reporter&) {
        Client client = connect_to(socket);
        const std::string problem = problem_reading(client, file);
        Reporter::require(problem.empty(), problem);
        Reporter::require(open((proc + "/mem").c_str(), O_RDWR) < 0, "the daemon's memory can be opened");
        Reporter::require(open((proc + "/fd/0").c_str(), O_RDONLY) < 0,
                          "the daemon's descriptors can be reopened");
        Reporter::require(read_file(proc + "/maps").empty(), "the daemon's maps can be read");
      },
      kNobody);
  CHECK(same_user.failure() == "");
}

}  // namespace
}  // namespace nvr::test
