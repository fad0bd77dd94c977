// What people look at: `top` on a terminal, and the daemon's log, there and in the journal.
#include <fcntl.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <optional>
#include <regex>
#include <sstream>

#include "tests/support/client_process.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

// An environment variable, for as long as this lives.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* const before = getenv(name)) before_ = before;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (before_)
      setenv(name_, before_->c_str(), 1);
    else
      unsetenv(name_);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

// A pseudo terminal, and what was written to it.
class Pty {
 public:
  Pty() {
    int master = -1;
    int slave = -1;
    if (openpty(&master, &slave, nullptr, nullptr, nullptr) != 0) throw TestFailure("no pseudo terminal");
    master_.reset(master);
    slave_.reset(slave);
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(slave, F_SETFD, FD_CLOEXEC);
    fcntl(master, F_SETFL, O_NONBLOCK);
  }
  [[nodiscard]] int slave() const { return slave_.get(); }
  void resize(unsigned short columns, unsigned short rows) const {
    const winsize size = {.ws_row = rows, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    ioctl(slave_.get(), TIOCSWINSZ, &size);
  }
  void press(char key) const {
    if (write(master_.get(), &key, 1) != 1) throw TestFailure("cannot type");
  }
  [[nodiscard]] const std::string& output() {
    char bytes[4096];
    for (ssize_t count; (count = read(master_.get(), bytes, sizeof(bytes))) > 0;)
      output_.append(bytes, static_cast<std::size_t>(count));
    return output_;
  }
  // Waits until that has come, and forgets what was before it.
  [[nodiscard]] bool wait_for(const std::string& text) {
    if (!wait_until([&] { return output().find(text) != std::string::npos; })) return false;
    output_.erase(0, output_.find(text));
    return true;
  }
  [[nodiscard]] std::string modes() const {
    termios now = {};
    tcgetattr(slave_.get(), &now);
    return std::to_string(now.c_iflag) + " " + std::to_string(now.c_oflag) + " " +
           std::to_string(now.c_lflag) + " " + std::to_string(now.c_cc[VMIN]) + " " +
           std::to_string(now.c_cc[VTIME]);
  }

 private:
  shm::UniqueFd master_;
  shm::UniqueFd slave_;
  std::string output_;
};

Process start_top(const Pty& terminal, const std::string& socket, std::vector<std::string> arguments = {}) {
  std::vector<std::string> argv = {path_of_ctl(), "--socket", socket, "top", "--interval", "0.2"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return spawn(Command{.argv = argv, .uid = {}, .max_descriptors = {}}, terminal.slave(), terminal.slave(),
               terminal.slave());
}

TEST_CASE("top paints a terminal, follows its size, and gives it back whatever ends it") {
  const Site site;
  const RecordingFile file = site.record({3, 77}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 8, .slots_per_stream = 2});
  std::vector<Stream> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(open_stream(client, file));
  const Variable kind("TERM", "xterm-256color");
  Pty terminal;
  terminal.resize(120, 40);
  const std::string before = terminal.modes();
  const int signal = GENERATE(0, SIGINT, SIGTERM, SIGHUP, SIGQUIT);
  CAPTURE(signal);
  Process top = start_top(terminal, daemon.socket());
  const bool has_begun = terminal.wait_for("\x1b[?1049h");
  CAPTURE(terminal.output());
  REQUIRE(has_begun);
  REQUIRE(terminal.wait_for("8 streams of 1 connections"));
  REQUIRE(terminal.wait_for("3/77"));
  CHECK(terminal.modes() != before);

  terminal.resize(60, 10);
  top.signal(SIGWINCH);
  REQUIRE(terminal.wait_for("and 4 more streams"));  // ten lines: five above the streams, and this one
  terminal.resize(120, 40);
  top.signal(SIGWINCH);
  REQUIRE(terminal.wait_for("PRIORITY"));  // which has no room on a narrow one

  if (signal == 0)
    terminal.press('q');
  else
    top.signal(signal);
  const auto exit = top.wait();
  REQUIRE(exit);
  CHECK(to_string(*exit) == "exit " + std::to_string(signal == 0 || signal == SIGINT ? 0 : 128 + signal));
  CHECK(terminal.wait_for("\x1b[?25h\x1b[?1049l"));
  CHECK(terminal.modes() == before);
}

TEST_CASE("top gives the terminal back when it is suspended, and takes it again") {
  const Site site;
  const DaemonProcess daemon = site.start();
  const Variable kind("TERM", "xterm");
  Pty terminal;
  const std::string before = terminal.modes();
  Process top = start_top(terminal, daemon.socket());
  REQUIRE(terminal.wait_for("disk ok"));
  top.signal(SIGTSTP);
  REQUIRE(terminal.wait_for("\x1b[?1049l"));
  CHECK(wait_until([&] { return terminal.modes() == before; }));
  top.signal(SIGCONT);
  REQUIRE(terminal.wait_for("\x1b[?1049h"));
  REQUIRE(terminal.wait_for("disk ok"));
  terminal.press('q');
  REQUIRE(top.wait());
  CHECK(terminal.modes() == before);
}

TEST_CASE("top waits for a daemon that has gone, and shows what it knew") {
  const Site site;
  const Variable kind("TERM", "xterm");
  Pty terminal;
  terminal.resize(200, 40);
  std::optional<DaemonProcess> daemon(site.start());
  Process top = start_top(terminal, daemon->socket());
  REQUIRE(terminal.wait_for("disk ok"));
  static_cast<void>(daemon->terminate());
  REQUIRE(terminal.wait_for("these figures are old"));
  daemon.reset();
  daemon.emplace(site.start());
  static_cast<void>(terminal.output());
  REQUIRE(terminal.wait_for("disk ok"));
  terminal.press('q');
  CHECK(to_string(top.wait().value_or(Exit{})) == "exit 0");
}

TEST_CASE("top on a dumb terminal prints plainly, once per interval") {
  const Site site;
  const DaemonProcess daemon = site.start();
  const Variable kind("TERM", "dumb");
  Pty terminal;
  const std::string before = terminal.modes();
  Process top = start_top(terminal, daemon.socket(), {"--count", "3"});
  CHECK(to_string(top.wait().value_or(Exit{})) == "exit 0");
  const std::string& output = terminal.output();
  CHECK_THAT(output, !Contains("\x1b"));
  int looks = 0;
  for (std::size_t at = 0; (at = output.find("disk ok", at)) != std::string::npos; ++at) ++looks;
  CHECK(looks == 3);
  CHECK(terminal.modes() == before);
}

TEST_CASE("top without a daemon is a clear error, and touches no terminal") {
  const Site site;
  const Variable kind("TERM", "xterm");
  Pty terminal;
  Process top = start_top(terminal, site.socket());
  CHECK(to_string(top.wait().value_or(Exit{})) == "exit 6");
  CHECK_THAT(terminal.output(), Contains(site.socket()) && !Contains("\x1b"));
}

TEST_CASE("metrics are as promtool wants them") {
  const std::string promtool = "/usr/bin/promtool";
  if (access(promtool.c_str(), X_OK) != 0) return skip_or_fail("no promtool (Debian: prometheus)");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 10 * kChunkBytes);
  const DaemonProcess daemon = site.start({"--device-kind", "rotational"});
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  const Capture metrics;
  Process ctl = spawn(
      Command{
          .argv = {path_of_ctl(), "--socket", daemon.socket(), "metrics"}, .uid = {}, .max_descriptors = {}},
      metrics.fd(), STDERR_FILENO);
  REQUIRE(to_string(ctl.wait().value_or(Exit{})) == "exit 0");
  CHECK_THAT(metrics.text(), Contains("nvr_readerd_published_chunks_total 10\n") &&
                                 Contains("nvr_readerd_read_seconds_bucket{source=\"memory\",le=\"+Inf\"}"));
  lseek(metrics.fd(), 0, SEEK_SET);
  const Capture said;
  Process check = spawn(Command{.argv = {promtool, "check", "metrics"}, .uid = {}, .max_descriptors = {}},
                        said.fd(), said.fd(), metrics.fd());
  CHECK(to_string(check.wait().value_or(Exit{})) == "exit 0");
  CHECK(said.text() == "");
}

// A daemon whose stderr is `log`, from its start to its end.
void run_daemon(const Site& site, const Capture& log, const std::string& journal_stream) {
  const Variable stream("JOURNAL_STREAM", journal_stream);
  Process daemon =
      spawn(Command{.argv = {path_of_daemon(), "--dir", site.directory(), "--socket", site.socket()},
                    .uid = {},
                    .max_descriptors = {}},
            log.fd(), log.fd());
  if (!wait_until([&] { return log.text().find("ready") != std::string::npos; }))
    throw TestFailure("the daemon says: " + log.text());
  daemon.signal(SIGTERM);
  if (!daemon.wait()) throw TestFailure("the daemon does not end");
}

std::string identity_of(int fd) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) throw TestFailure("cannot stat");
  return std::to_string(st.st_dev) + ":" + std::to_string(st.st_ino);
}

TEST_CASE("in the journal each line has a priority, and neither time nor colour") {
  const Site site;
  const Capture log;
  run_daemon(site, log, identity_of(log.fd()));
  std::istringstream lines(log.text());
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    CAPTURE(line);
    CHECK(std::regex_match(line, std::regex("<[3467]>[a-z].*")));
    CHECK(line.find('\x1b') == std::string::npos);
    CHECK(line.find("nvr-readerd[") == std::string::npos);
  }
  CHECK(count >= 2);
  CHECK_THAT(log.text(), Contains("<6>ready: serving"));
}

TEST_CASE("where stderr is not the journal's, lines have their time") {
  const Site site;
  const Capture log;
  const Capture another;
  run_daemon(site, log, identity_of(another.fd()));
  CHECK(std::regex_search(
      log.text(), std::regex("^[0-9-]+T[0-9:.]+[+-][0-9]{2}:[0-9]{2} nvr-readerd\\[[0-9]+\\] warning: ")));
  CHECK_THAT(log.text(), !Contains("<6>"));
}

TEST_CASE("the log says the same kind of thing only so often, and that lines were left out") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  const Site site;
  const DaemonProcess daemon = site.start({"--allow-uid", std::to_string(kNobody - 1)});  // and nobody else
  const std::string socket = daemon.socket();
  constexpr int kAttempts = 400;
  ClientProcess stranger = ClientProcess::start(
      [&](const Reporter&) {
        for (int i = 0; i < kAttempts; ++i) Reporter::require(!Client::connect(socket), "admitted");
      },
      kNobody);
  CHECK(stranger.failure() == "");
  REQUIRE(daemon.total("connections_refused") == kAttempts);
  // Each refusal is a line, or counted in a line that sums up an interval.
  int lines = 0;
  const auto told = [&] {
    const std::string log = daemon.log();
    const std::regex left_out("([0-9]+) more lines about refused clients were left out");
    lines = 0;
    for (std::size_t at = 0; (at = log.find("refused pid ", at)) != std::string::npos; ++at) ++lines;
    int sum = lines;
    for (std::sregex_iterator match(log.begin(), log.end(), left_out), end; match != end; ++match)
      sum += std::stoi((*match)[1]);
    return sum;
  };
  CHECK(wait_until([&] { return told() == kAttempts; }));
  CHECK(lines >= 20);
  CHECK(lines < kAttempts);
  CHECK_THAT(daemon.log(), Contains("uid " + std::to_string(kNobody)));
}

}  // namespace
}  // namespace nvr::test
