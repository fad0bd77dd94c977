// Where io_uring is not to be had: --engine auto serves all the same and says why in one line, which names
// the cause and the remedy; --engine io_uring ends with that line.
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Words = std::vector<std::string>;

constexpr char kRefused[] = "io_uring does not work here";

// The text from kRefused on in the only line that has it; empty if there is none.
std::string reason_in(const std::string& log) {
  std::istringstream lines(log);
  std::string reason;
  for (std::string line; std::getline(lines, line);) {
    const auto at = line.find(kRefused);
    if (at == std::string::npos) continue;
    if (!reason.empty()) throw TestFailure("says it twice:\n" + log);
    reason = line.substr(at);
  }
  return reason;
}

struct Refused {
  Site site;
  RecordingFile file = site.record({1, 1}, 40 * kChunkBytes + 1);
  DaemonOptions options = site.options();

  // What --engine auto says; it has served with mmap.
  [[nodiscard]] std::string reason_of_auto() {
    options.engine = "auto";
    const DaemonProcess daemon(options);
    CHECK(daemon.status().at("engine") == "mmap");
    Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
    CHECK(problem_reading(client, file) == "");
    std::string reason = reason_in(daemon.log());
    const auto end = reason.find("; serving with engine mmap");
    CHECK(end != std::string::npos);
    return reason.substr(0, end);
  }

  // Everything that --engine io_uring says before it ends.
  [[nodiscard]] std::string words_of_explicit() {
    options.engine = "io_uring";
    options.wait_until_ready = false;
    DaemonProcess daemon(options);
    const auto exit = daemon.wait();
    options.wait_until_ready = true;
    REQUIRE(exit.has_value());
    CHECK(to_string(*exit) == "exit 2");
    return daemon.log();
  }

  void check(const Words& cause_and_remedy) {
    const std::string reason = reason_of_auto();
    CAPTURE(reason);
    for (const std::string& word : cause_and_remedy) {
      CAPTURE(word);
      CHECK(reason.find(word) != std::string::npos);
    }
    CHECK(words_of_explicit() == "nvr-readerd: " + reason + "\n");
  }
};

TEST_CASE("io_uring denied by a seccomp filter") {
  if (prctl(PR_GET_SECCOMP) != 0) return skip_or_fail("no seccomp here, or in force already");
  struct Case {
    DeniedCall denied;
    Words words;
  };
  const std::vector<Case> cases = {
      {{SYS_io_uring_setup, EPERM},
       {"io_uring_setup", "Operation not permitted", "seccomp", "allow io_uring_setup", "--engine mmap"}},
      {{SYS_io_uring_setup, ENOSYS},
       {"io_uring_setup", "Function not implemented", "seccomp", "allow", "--engine mmap"}},
      {{SYS_io_uring_enter, EPERM}, {"Operation not permitted", "seccomp", "allow", "--engine mmap"}},
      {{SYS_io_uring_register, EPERM}, {"Operation not permitted", "seccomp", "allow", "--engine mmap"}}};
  for (const Case& refusal : cases) {
    CAPTURE(refusal.denied.number, refusal.denied.error);
    Refused refused;
    refused.options.restrictions.denied = {refusal.denied};
    refused.check(refusal.words);
  }
}

// The sysctl is the whole machine's: this daemon alone gets what it does, by the same error of the same call
// and the same file to read.
TEST_CASE("io_uring disabled by sysctl") {
  if (geteuid() != 0) return skip_or_fail("a mount namespace needs root");
  if (access(kIoUringDisabled, F_OK) != 0) return skip_or_fail("no sysctl kernel.io_uring_disabled here");
  for (const std::string level : {"1", "2"}) {
    CAPTURE(level);
    Refused refused;
    refused.options.restrictions.denied = {{SYS_io_uring_setup, EPERM}};
    refused.options.restrictions.io_uring_disabled = refused.site.root() / "io_uring_disabled";
    write_file(refused.options.restrictions.io_uring_disabled, level + "\n");
    refused.check({"io_uring_setup", "Operation not permitted", "kernel.io_uring_disabled is " + level,
                   "set it to 0", "--engine mmap"});
  }
}

// Serves correctly by io_uring, whoever asks for it, or refuses as above with `words`.
void check_serves(Refused& refused, const Words& words, void (*look)(const DaemonProcess&)) {
  for (const char* const engine : {"auto", "io_uring"}) {
    CAPTURE(engine);
    {
      refused.options.engine = engine;
      const DaemonProcess daemon(refused.options);
      look(daemon);
      if (daemon.status().at("engine") == "io_uring") {
        CHECK(reason_in(daemon.log()).empty());
        Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 16});
        CHECK(problem_reading(client, refused.file) == "");
        continue;
      }
    }
    return refused.check(words);
  }
}

TEST_CASE("no memory may be locked") {
  Refused refused;
  refused.options.restrictions.max_locked_bytes = 0;
  check_serves(refused, {"LimitMEMLOCK", "--engine mmap"}, [](const DaemonProcess& daemon) {
    constexpr std::uint64_t kIpcLock = 1 << 14;
    const std::string proc = "/proc/" + std::to_string(daemon.pid());
    const std::string limits = read_file(proc + "/limits");
    std::istringstream line(limits.substr(limits.find("Max locked memory")));
    std::string word;
    std::string limit;
    line >> word >> word >> word >> limit;
    CHECK(limit == "0");
    const std::string status = read_file(proc + "/status");
    const std::string effective = status.substr(status.find("CapEff:") + 7);
    CHECK((std::stoull(effective, nullptr, 16) & kIpcLock) == 0);
  });
}

TEST_CASE("32 descriptors are enough") {
  Refused refused;
  refused.options.max_descriptors = 32;
  check_serves(refused, {"LimitNOFILE", "--engine mmap"}, [](const DaemonProcess&) {});
}

// The sanitizers' own checks need descriptors.
TEST_CASE("with too few descriptors for the ring io_uring says so", "[plain]") {
  int refusals = 0;
  for (rlim_t limit = 10; limit < 32; ++limit) {
    CAPTURE(limit);
    Refused refused;
    refused.options.max_descriptors = limit;
    refused.options.engine = "io_uring";
    refused.options.wait_until_ready = false;
    DaemonProcess daemon(refused.options);
    if (wait_until([&] { return daemon.log().find("ready") != std::string::npos || !daemon.is_running(); }) &&
        daemon.is_running())
      break;
    CHECK(to_string(*daemon.wait()) == "exit 2");
    const std::string log = daemon.log();
    CAPTURE(log);
    CHECK(log.find("Too many open files") != std::string::npos);
    const std::string reason = reason_in(log);
    if (reason.empty()) continue;  // there were not even enough to get that far
    ++refusals;
    CHECK(reason.find("raise LimitNOFILE") != std::string::npos);
    CHECK(reason.find("--engine mmap") != std::string::npos);
    CHECK(log == "nvr-readerd: " + reason + "\n");
  }
  CHECK(refusals > 0);
}

TEST_CASE("an io_uring that fails while it is in use ends every stream with one error, and the daemon") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes + 1);
  DaemonOptions options = site.options();
  options.arguments = {"--io-depth", "32"};
  options.restrictions.denied = {
      {.number = SYS_io_uring_enter, .error = EPERM, .arguments = {{.index = 1, .least = 8}}}};
  DaemonProcess daemon(options);
  Client client = connect_to(daemon, {.streams = 20, .slots_per_stream = 4});
  CHECK(problem_reading(client, file) == "");  // a few submissions at a time are allowed
  std::vector<Stream> streams;
  for (int i = 0; i < 16; ++i) streams.push_back(open_stream(client, file));
  std::vector<Chunk> held;  // everybody has something, and waits for more
  for (Stream& stream : streams) {
    auto next = stream.next();
    REQUIRE(code_of(next) == Code::kOk);
    held.push_back(std::move(**next));
  }

  daemon.stop();  // so that it finds all of them at once, when it goes on: as many files to close
  for (std::size_t i = 4; i < streams.size(); ++i) streams[i].cancel();
  daemon.go_on();
  for (std::size_t i = 0; i < 4; ++i) {
    const Outcome outcome = drain(streams[i]);
    REQUIRE(outcome.error.has_value());
    CHECK(outcome.error->code == Code::kUnavailable);
    CHECK_THAT(outcome.error->message, Catch::Matchers::Contains("can no longer read its disk"));
    CHECK_FALSE(streams[i].next().has_value());
  }
  for (const Chunk& chunk : held) CHECK(file.difference(chunk.offset(), chunk.bytes()) == "");
  const auto exit = daemon.wait();
  REQUIRE(exit.has_value());
  CHECK(*exit == Exit{.code = 1, .signal = {}});
  CHECK_THAT(daemon.log(), Catch::Matchers::Contains("io_uring has failed"));
}

}  // namespace
}  // namespace nvr::test
