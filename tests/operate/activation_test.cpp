// systemd's protocols: the passed socket is used, and stays when the daemon ends; readiness and the watchdog
// are told, also while the disk hangs.
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kActivate = "/usr/bin/systemd-socket-activate";

bool is_socket_there(const std::string& path) {
  return access(path.c_str(), F_OK) == 0;
}

// systemd's part, by its own tool: it listens, and becomes the daemon at the first connect.
class Activated {
 public:
  Activated(const Site& site, std::vector<std::string> how) : socket_(site.socket()) {
    std::vector<std::string> argv = {kActivate};
    argv.insert(argv.end(), how.begin(), how.end());
    for (const std::string& argument :
         {std::string("-l"), socket_, path_of_daemon(), std::string("--dir"), site.directory()})
      argv.push_back(argument);
    process_.emplace(spawn({.argv = argv, .uid = {}, .max_descriptors = {}}, log_.fd(), log_.fd()));
    // Not for the socket's path, which is there a moment before anybody listens.
    if (!says("Listening on ")) throw TestFailure("nobody listens: " + log());
  }

  [[nodiscard]] std::string log() const { return log_.text(); }
  // Sooner or later: the log has a thread of its own.
  [[nodiscard]] bool says(std::string_view what) const {
    return wait_until([&] { return log().find(what) != std::string::npos; });
  }
  [[nodiscard]] Process& process() { return *process_; }

 private:
  std::string socket_;
  Capture log_;
  std::optional<Process> process_;
};

TEST_CASE("a daemon that systemd starts at the first connect serves that client, and leaves the socket") {
  if (access(kActivate, X_OK) != 0) return skip_or_fail("no systemd-socket-activate");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  Activated activated(site, {"--seqpacket"});
  const auto read = run_program({path_of_cat(), "--socket", site.socket(), "1/1"});
  CAPTURE(activated.log());
  CHECK(to_string(read.exit) == "exit 0");
  CHECK(read.output.size() == file.size);
  CHECK(activated.says("ready: serving " + site.directory() + " at " + site.socket()));
  const auto status = run_program({path_of_ctl(), "--socket", site.socket(), "status"});
  CHECK(to_string(status.exit) == "exit 0");
  activated.process().signal(SIGTERM);
  CHECK(activated.process().wait() == Exit{.code = 0, .signal = {}});
  CHECK(is_socket_there(site.socket()));
}

TEST_CASE("a passed socket that is of another kind is refused by name") {
  if (access(kActivate, X_OK) != 0) return skip_or_fail("no systemd-socket-activate");
  const Site site;
  Activated activated(site, {});  // a stream socket
  const shm::UniqueFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  site.socket().copy(address.sun_path, sizeof(address.sun_path) - 1);
  REQUIRE(connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  CHECK(activated.process().wait() == Exit{.code = 2, .signal = {}});
  CHECK_THAT(activated.log(), Contains("ListenSequentialPacket="));
  CHECK(is_socket_there(site.socket()));
}

// systemd's end of sd_notify.
class Notified {
 public:
  explicit Notified(const std::string& path) : socket_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    if (bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
      throw TestFailure("cannot bind " + path);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
    setenv("WATCHDOG_USEC", "200000", 1);
  }
  ~Notified() {
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
  }
  Notified(const Notified&) = delete;
  Notified& operator=(const Notified&) = delete;

  // Fills the socket, so that there is no room for another message.
  void fill() const {
    const shm::UniqueFd sender(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address = {};
    socklen_t length = sizeof(address);
    auto* const to = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(getsockname(socket_.get(), to, &length) == 0);
    while (sendto(sender.get(), "full", 4, 0, to, length) == 4) {
    }
    REQUIRE(errno == EAGAIN);
  }
  // Is something told that contains this, sooner or later?
  [[nodiscard]] bool hears(std::string_view what) const {
    return wait_until([&] {
      std::array<char, 4096> buffer;
      const ssize_t length = recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      const std::string_view told(buffer.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
      return told.find(what) != std::string_view::npos;
    });
  }

 private:
  shm::UniqueFd socket_;
};

TEST_CASE("systemd that does not read holds up neither clients, nor status, nor the end") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const Notified systemd(site.root() / "notify.sock");
  systemd.fill();
  DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  CHECK(daemon.total("connections_now") == 1);
  CHECK(systemd.hears("READY=1\n"));  // once it reads
  CHECK(systemd.hears("WATCHDOG=1"));
  systemd.fill();
  CHECK(daemon.total("connections_now") == 1);
  CHECK(to_string(daemon.terminate()) == "exit 0");
}

TEST_CASE("systemd does not wait for a disk that is not mounted yet") {
  const Site site;
  const Notified systemd(site.root() / "notify.sock");
  DaemonOptions options = site.options({"--wait-for-dir"});
  options.directory = site.root() / "later";
  options.wait_until_ready = false;
  DaemonProcess daemon(options);
  CHECK(systemd.hears("READY=1\nSTATUS=Waiting for " + options.directory));
  for (int i = 0; i < 3; ++i) CHECK(systemd.hears("WATCHDOG=1"));
  REQUIRE(mkdir(options.directory.c_str(), 0755) == 0);
  CHECK(systemd.hears("STATUS=Serving " + options.directory));
  CHECK(to_string(daemon.terminate()) == "exit 0");
}

TEST_CASE("systemd hears that the daemon is ready, and that it lives while the disk hangs") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 10 * kChunkBytes, 1);
  const Notified systemd(site.root() / "notify.sock");
  DaemonProcess daemon = site.start();
  CHECK(systemd.hears("READY=1"));
  for (int i = 0; i < 5; ++i) CHECK(systemd.hears("WATCHDOG=1"));  // with nothing to do
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  disk.stall_reads(file.id);
  Stream stream = open_stream(client, file);
  const ReleaseAtEnd release(disk);
  disk.wait_until_stuck(file.id);
  for (int i = 0; i < 5; ++i) CHECK(systemd.hears("WATCHDOG=1"));
  disk.release();
  CHECK(to_string(daemon.terminate()) == "exit 0");
  CHECK(systemd.hears("STOPPING=1"));
}

}  // namespace
}  // namespace nvr::test
