// Nobody reads the log: a full pipe, a terminal stopped with ^S, the journal's socket. The daemon serves,
// answers and ends all the same, and the log goes on where it was when it is read again.
#include <fcntl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/streams.h"
#include "tools/ctl/control_session.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

// A place for the log that holds little, with this process at its other end.
class Place {
 public:
  enum class Kind { kPipe, kTerminal, kSocket };

  explicit Place(Kind kind) {
    int ends[2] = {-1, -1};
    if (kind == Kind::kPipe) {
      if (pipe(ends) != 0 || fcntl(ends[1], F_SETPIPE_SZ, 4096) != 4096) throw TestFailure("no small pipe");
    } else if (kind == Kind::kTerminal) {
      if (openpty(&ends[0], &ends[1], nullptr, nullptr, nullptr) != 0) throw TestFailure("no terminal");
      if (tcflow(ends[1], TCOOFF) != 0) throw TestFailure("cannot stop the terminal");
    } else {
      const int least = 1;
      if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 ||
          setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)) != 0)
        throw TestFailure("no small socket");
    }
    reader_.reset(ends[0]);
    writer_.reset(ends[1]);
    fcntl(reader_.get(), F_SETFL, O_NONBLOCK);
  }

  [[nodiscard]] int writer() const { return writer_.get(); }
  void let_go_on() const { static_cast<void>(tcflow(writer(), TCOON)); }  // a terminal
  // What has been written so far.
  [[nodiscard]] const std::string& text() {
    char bytes[4096];
    for (ssize_t count; (count = read(reader_.get(), bytes, sizeof(bytes))) > 0;)
      text_.append(bytes, static_cast<std::size_t>(count));
    return text_;
  }

 private:
  shm::UniqueFd reader_;
  shm::UniqueFd writer_;
  std::string text_;
};

Process start(const std::string& directory, const std::string& socket, const Place& place) {
  return spawn(Command{.argv = {path_of_daemon(), "--dir", directory, "--socket", socket},
                       .uid = {},
                       .max_descriptors = {}},
               place.writer(), place.writer());
}

nlohmann::json status_of(const Site& site) {
  auto session = tools::ControlSession::connect(site.socket(), kLongEnough);
  if (!session) throw TestFailure(session.error().message);
  const auto answer = session->status();
  if (!answer) throw TestFailure(answer.error().message);
  return nlohmann::json::parse(*answer);
}

TEST_CASE("a log that nobody reads holds up neither clients, nor status, nor the end") {
  const auto kind = GENERATE(Place::Kind::kPipe, Place::Kind::kTerminal, Place::Kind::kSocket);
  CAPTURE(static_cast<int>(kind));
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  Place place(kind);
  Process daemon = start(site.directory(), site.socket(), place);
  REQUIRE(wait_until([&] { return Client::connect(site.socket()).has_value(); }));
  constexpr int kClients = 100;  // more lines than there is room for
  for (int i = 0; i < kClients; ++i) {
    Client client = connect_to(site.socket(), {.streams = 1, .slots_per_stream = 2});
    if (i % 10 == 0) CHECK(problem_reading(client, file) == "");
  }
  CHECK(status_of(site).at("totals").at("connections_accepted") >= kClients);
  daemon.signal(SIGTERM);
  CHECK(to_string(daemon.wait().value_or(Exit{})) == "exit 0");
  CHECK_FALSE(std::filesystem::exists(site.socket()));
}

TEST_CASE("a log that is read again goes on where it was") {
  const auto kind = GENERATE(Place::Kind::kPipe, Place::Kind::kTerminal, Place::Kind::kSocket);
  CAPTURE(static_cast<int>(kind));
  const Site site;
  Place place(kind);
  Process daemon = start(site.directory(), site.socket(), place);
  REQUIRE(wait_until([&] { return Client::connect(site.socket()).has_value(); }));
  constexpr int kClients = 40;  // fewer than are left out
  for (int i = 0; i < kClients; ++i)
    static_cast<void>(connect_to(site.socket(), {.streams = 1, .slots_per_stream = 2}));
  REQUIRE(wait_until([&] { return status_of(site).at("totals").at("connections_now") == 0; }));
  CHECK(status_of(site).at("totals").at("log_lines_lost") == 0);
  place.let_go_on();
  const auto lines_with = [&](const std::string& what) {
    std::istringstream lines(place.text());
    int count = 0;
    for (std::string line; std::getline(lines, line);) count += line.find(what) != std::string::npos ? 1 : 0;
    return count;
  };
  CHECK(wait_until([&] { return lines_with(" disconnected after ") >= kClients; }));
  CAPTURE(place.text());
  CHECK(lines_with(" connected: ") >= kClients);
  CHECK(place.text().find("ready: serving") < place.text().find(" connected: "));
  daemon.signal(SIGTERM);
  CHECK(to_string(daemon.wait().value_or(Exit{})) == "exit 0");
  CHECK_THAT(place.text(), Contains("stopping on "));
}

TEST_CASE("a daemon that cannot start has said everything, in order, when it has ended") {
  const Site site;
  const Place taken(Place::Kind::kPipe);
  Process first = start(site.directory(), site.socket(), taken);
  REQUIRE(wait_until([&] { return Client::connect(site.socket()).has_value(); }));
  const auto second = run_program({path_of_daemon(), "--dir", site.directory(), "--socket", site.socket(),
                                   "--engine", "mmap", "--log-level", "trace"});
  CHECK(to_string(second.exit) == "exit 2");
  CAPTURE(second.errors);
  CHECK(second.errors.ends_with("another process listens at " + site.socket() +
                                ": stop it or choose another --socket\n"));
  CHECK_THAT(second.errors, Contains("nvr-readerd: another process"));
  first.signal(SIGTERM);
  CHECK(first.wait().has_value());
}

TEST_CASE("a daemon that cannot start ends, whether its log is read or not") {
  const Site site;
  Place place(Place::Kind::kPipe);
  REQUIRE(write(place.writer(), std::string(4096, '.').c_str(), 4096) == 4096);
  Process daemon = start(site.root() / "nowhere", site.socket(), place);
  CHECK(to_string(daemon.wait().value_or(Exit{})) == "exit 2");
}

TEST_CASE("a daemon that ends before it has a log does not wait for the reader either", "[plain]") {
  const Place place(Place::Kind::kPipe);
  REQUIRE(write(place.writer(), std::string(4096, '.').c_str(), 4096) == 4096);
  const auto limit_stack = [] {
    const rlimit small = {.rlim_cur = 64 << 10, .rlim_max = 64 << 10};
    return setrlimit(RLIMIT_STACK, &small) == 0;
  };
  Process daemon = spawn(Command{.argv = {path_of_daemon(), "--version"}, .before_exec = limit_stack},
                         place.writer(), place.writer());
  CHECK(to_string(daemon.wait().value_or(Exit{})) == "exit 2");
}

}  // namespace
}  // namespace nvr::test
