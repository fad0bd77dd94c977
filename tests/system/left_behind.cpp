// Nothing is left behind, and nothing of others is taken: socket paths and shared memory.
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <set>

#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

std::set<std::string> names_in(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    names.insert(entry.path().filename());
  return names;
}

ino_t inode_of(const std::string& path) {
  struct stat st = {};
  return lstat(path.c_str(), &st) == 0 ? st.st_ino : 0;
}

TEST_CASE("no shared memory has a name and the socket goes with the daemon", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const auto before = names_in("/dev/shm");
  {
    DaemonProcess daemon = site.start();
    Client client = connect_to(daemon);
    CHECK(problem_reading(client, file) == "");
    for (const pid_t pid : {daemon.pid(), getpid()}) {
      CHECK(mappings_beneath(pid, "/dev/shm") == 0);
      CHECK(descriptors_beneath(pid, "/dev/shm") == 0);
    }
    CHECK(std::filesystem::exists(site.socket()));
    CHECK(to_string(daemon.terminate()) == "exit 0");
    CHECK_FALSE(std::filesystem::exists(site.socket()));
  }
  CHECK(names_in(site.root().path()) == std::set<std::string>{"samples"});
  for (const std::string& name : names_in("/dev/shm")) {
    CAPTURE(name);
    CHECK((before.contains(name) || name.find("nvr") == std::string::npos));
  }
}

TEST_CASE("the socket of a killed daemon is taken over", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  DaemonProcess first = site.start();
  first.kill();
  REQUIRE(std::filesystem::is_socket(site.socket()));
  DaemonProcess second = site.start();
  Client client = connect_to(second);
  CHECK(problem_reading(client, file) == "");
  CHECK(to_string(second.terminate()) == "exit 0");
  CHECK_FALSE(std::filesystem::exists(site.socket()));
}

TEST_CASE("the socket of a live daemon is not stolen even when that daemon is stopped", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const DaemonProcess first = site.start();
  const ino_t inode = inode_of(site.socket());
  DaemonOptions options = site.options();
  options.wait_until_ready = false;
  for (const bool is_stopped : {false, true}) {
    CAPTURE(is_stopped);
    if (is_stopped) first.stop();
    DaemonProcess second(options);
    const auto exit = second.wait();
    if (is_stopped) first.go_on();
    REQUIRE(exit.has_value());
    CAPTURE(second.log());
    CHECK(to_string(*exit) == "exit 2");
    CHECK(second.log().find(site.socket()) != std::string::npos);
    CHECK(inode_of(site.socket()) == inode);
    Client client = connect_to(first);
    CHECK(problem_reading(client, file) == "");
  }
}

TEST_CASE("of daemons that start at once over a stale socket exactly one serves", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  for (int turn = 0; turn < scaled(5, 2); ++turn) {
    site.start().kill();
    DaemonOptions options = site.options();
    options.wait_until_ready = false;
    std::vector<DaemonProcess> daemons;
    for (int i = 0; i < 6; ++i) daemons.emplace_back(options);
    const auto running = [&] {
      int count = 0;
      for (DaemonProcess& daemon : daemons) count += daemon.is_running() ? 1 : 0;
      return count;
    };
    CHECK(wait_until([&] { return running() == 1; }));
    for (DaemonProcess& daemon : daemons) {
      if (daemon.is_running()) CHECK(daemon.wait_until_ready());
    }
    CHECK(running() == 1);
    Client client = connect_to(site.socket());
    CHECK(problem_reading(client, file) == "");
  }
}

TEST_CASE("what lies at the socket's path and is no socket is never removed", "[once]") {
  const Site site;
  DaemonOptions options = site.options();
  options.wait_until_ready = false;
  const auto refuses = [&] {
    DaemonProcess daemon(options);
    const auto exit = daemon.wait();
    CAPTURE(daemon.log());
    CHECK((exit && to_string(*exit) == "exit 2"));
    CHECK(daemon.log().find(options.socket) != std::string::npos);
  };
  write_file(site.socket(), "precious");
  refuses();
  CHECK(read_file(site.socket()) == "precious");

  const std::string link = site.root() / "link";
  REQUIRE(symlink(site.socket().c_str(), link.c_str()) == 0);
  options.socket = link;
  refuses();
  CHECK(std::filesystem::is_symlink(link));
  CHECK(read_file(site.socket()) == "precious");

  options.socket = site.directory();
  refuses();
  CHECK(std::filesystem::is_directory(site.directory()));
}

TEST_CASE("at its end a daemon removes the socket only if it is still its own", "[once]") {
  const Site site;
  DaemonProcess first = site.start();
  REQUIRE(unlink(site.socket().c_str()) == 0);
  write_file(site.socket(), "another's");
  CHECK(to_string(first.terminate()) == "exit 0");
  CHECK(read_file(site.socket()) == "another's");
}

TEST_CASE("a socket path that cannot be is a clear error", "[once]") {
  const Site site;
  DaemonOptions options = site.options();
  options.wait_until_ready = false;
  for (const std::string& path : {site.root() / "missing/reader.sock", site.root() / std::string(200, 'x')}) {
    CAPTURE(path);
    options.socket = path;
    DaemonProcess daemon(options);
    const auto exit = daemon.wait();
    REQUIRE(exit.has_value());
    CHECK(to_string(*exit) == "exit 2");
    CHECK(daemon.log().find("socket") != std::string::npos);
  }
}

}  // namespace
}  // namespace nvr::test
