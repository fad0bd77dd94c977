// nvr-cat: bytes to stdout and nothing else; exit codes; one clear line when something is wrong.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/support/client_process.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

ProgramResult cat(const std::string& socket, std::vector<std::string> arguments,
                  std::optional<uid_t> uid = {}) {
  std::vector<std::string> argv = {path_of_cat(), "--socket", socket};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return run_program({.argv = argv, .uid = uid, .max_descriptors = {}});
}

// Failed with `code`, wrote nothing, and said one line that contains all of `parts`. What is not so; empty if
// all is.
std::string problem_with_failure(const ProgramResult& result, int code,
                                 const std::vector<std::string>& parts) {
  if (result.exit != Exit{.code = code, .signal = {}}) return to_string(result.exit) + ": " + result.errors;
  if (!result.output.empty()) return "bytes on stdout";
  if (std::ranges::count(result.errors, '\n') != 1) return "not one line: " + result.errors;
  for (const std::string& part : parts) {
    if (result.errors.find(part) == std::string::npos) return "'" + part + "' is not in: " + result.errors;
  }
  return "";
}

std::string problem_with_success(const ProgramResult& result, const RecordingFile& file, std::uint64_t begin,
                                 std::uint64_t end) {
  if (result.exit != Exit{.code = 0, .signal = {}}) return to_string(result.exit) + ": " + result.errors;
  if (!result.errors.empty()) return "on stderr: " + result.errors;
  if (result.output.size() != end - begin) return std::to_string(result.output.size()) + " bytes";
  return file.difference(begin, std::as_bytes(std::span(result.output)));
}

TEST_CASE("nvr-cat writes the bytes of whole recordings and of ranges", "[once]") {
  const Site site;
  const RecordingFile file = site.record({3, 1842086}, 30'000'001);
  const RecordingFile empty = site.record({3, 1}, 0);
  const DaemonProcess daemon = site.start();
  CHECK(problem_with_success(cat(daemon.socket(), {"3/1842086"}), file, 0, file.size) == "");
  CHECK(problem_with_success(cat(daemon.socket(), {"00000003001c1ba6"}), file, 0, file.size) == "");
  CHECK(problem_with_success(cat(daemon.socket(), {"3/1"}), empty, 0, 0) == "");
  const std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges = {
      {0, 1}, {0, 65536}, {0, 65537}, {12'345, 20'000'001}, {30'000'000, 30'000'001}, {5, 5}};
  for (const auto& [begin, end] : ranges) {
    CAPTURE(begin, end);
    const std::string range = std::to_string(begin) + "-" + std::to_string(end);
    CHECK(problem_with_success(cat(daemon.socket(), {"3/1842086", "--range", range}), file, begin, end) ==
          "");
  }
  CHECK(problem_with_success(cat(daemon.socket(), {"3/1842086", "--range", "29999990-"}), file, 29'999'990,
                             file.size) == "");
  for (const char* const priority : {"live", "playback", "export", "scrub"})
    CHECK(problem_with_success(
              cat(daemon.socket(), {"3/1842086", "--priority", priority, "--range", "7-700000"}), file, 7,
              700'000) == "");
}

TEST_CASE("nvr-cat says in one line and in its exit code what is wrong", "[once]") {
  const Site site;
  const RecordingFile file = site.record({3, 1842086}, 1000);
  REQUIRE(mkdir((site.directory() + "/0000000300000002").c_str(), 0755) == 0);
  std::string socket;
  {
    const DaemonProcess daemon = site.start();
    socket = daemon.socket();
    CHECK(problem_with_failure(cat(socket, {"3/7"}), 3, {"3/7", site.directory()}) == "");
    CHECK(problem_with_failure(cat(socket, {"3/1842086", "--range", "0-1001"}), 4,
                               {"3/1842086", "0", "1001", "1000"}) == "");
    CHECK(problem_with_failure(cat(socket, {"3/1842086", "--range", "0-9223372036854775808"}), 4, {}) == "");
    CHECK(problem_with_failure(cat(socket, {"3/2"}), 1, {"3/2"}) == "");
  }
  CHECK(problem_with_failure(cat(socket, {"3/1842086"}), 6, {socket}) == "");
}

TEST_CASE("nvr-cat of a user whom the daemon does not serve is exit 8", "[once]") {
  if (geteuid() != 0) return skip_or_fail("running nvr-cat as another user needs root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start();
  CHECK(problem_with_failure(cat(daemon.socket(), {"1/1"}, kNobody), 8, {daemon.socket()}) == "");
}

TEST_CASE("nvr-cat of a daemon that admits nobody more is exit 9", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start({"--max-clients", "1"});
  {
    Client client = connect_to(daemon);
    CHECK(problem_with_failure(cat(daemon.socket(), {"1/1"}), 9, {"--max-clients"}) == "");
  }
  CHECK(wait_until([&] { return cat(daemon.socket(), {"1/1"}).exit == Exit{.code = 0, .signal = {}}; }));
}

TEST_CASE("nvr-cat with a time limit gives up when the disk hangs", "[once]") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 300'000, 1);
  const DaemonProcess daemon = site.start();
  disk.stall_reads(file.id);
  CHECK(problem_with_failure(cat(daemon.socket(), {"1/1", "--timeout", "2"}), 7, {"1/1"}) == "");
  disk.release();
  CHECK(problem_with_success(cat(daemon.socket(), {"1/1", "--timeout", "30"}), file, 0, file.size) == "");
}

TEST_CASE("nvr-cat of a recording that cannot be read to its end is exit 5", "[once]") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 40 * kChunkBytes, 1);
  disk.fail_reads(file.id, 0, 4096);
  const DaemonProcess daemon = site.start();
  CHECK(problem_with_failure(cat(daemon.socket(), {"1/1"}), 5, {"1/1"}) == "");
}

// An nvr-cat whose reader does not read on, so that it is in the middle when the daemon goes.
class HeldUpCat {
 public:
  HeldUpCat(const DaemonProcess& daemon, std::vector<std::string> more) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    read_end_.reset(ends[0]);
    const shm::UniqueFd write_end(ends[1]);
    std::vector<std::string> argv = {path_of_cat(), "--socket", daemon.socket(), "1/1"};
    argv.insert(argv.end(), more.begin(), more.end());
    process_.emplace(spawn({.argv = argv, .uid = {}, .max_descriptors = {}}, write_end.get(), errors_.fd()));
    result_.output.resize(1);
    REQUIRE(read(read_end_.get(), result_.output.data(), 1) == 1);
  }
  [[nodiscard]] ProgramResult finish() {
    std::vector<char> rest(1 << 20);
    for (ssize_t n = 0; (n = read(read_end_.get(), rest.data(), rest.size())) > 0;)
      result_.output.append(rest.data(), static_cast<std::size_t>(n));
    const auto exit = process_->wait();
    REQUIRE(exit.has_value());
    return {.exit = *exit, .output = std::move(result_.output), .errors = errors_.text()};
  }

 private:
  shm::UniqueFd read_end_;
  Capture errors_;
  std::optional<Process> process_;
  ProgramResult result_;
};

TEST_CASE("nvr-cat under a daemon that is killed is exit 6", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000 * kChunkBytes);
  DaemonProcess daemon = site.start();
  HeldUpCat held_up(daemon, {});
  daemon.kill();
  const ProgramResult result = held_up.finish();
  CHECK(to_string(result.exit) == "exit 6");
  CHECK(std::ranges::count(result.errors, '\n') == 1);
}

TEST_CASE("nvr-cat --resume goes on under the next daemon, and is exit 6 when none comes", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 200 * kChunkBytes + 3);
  DaemonProcess daemon = site.start();
  {
    HeldUpCat held_up(daemon, {"--resume", "100"});
    daemon.kill();
    daemon = site.start();
    CHECK(problem_with_success(held_up.finish(), file, 0, file.size) == "");
  }
  HeldUpCat held_up(daemon, {"--resume", "0.2"});
  daemon.kill();
  const ProgramResult result = held_up.finish();
  CHECK(to_string(result.exit) == "exit 6");
  CHECK_THAT(result.errors, Catch::Contains("has been away for"));
}

TEST_CASE("nvr-cat of a daemon that is stopped is exit 6", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start();
  daemon.stop();
  CHECK(problem_with_failure(cat(daemon.socket(), {"1/1"}), 6, {daemon.socket(), "is it stopped?"}) == "");
  daemon.go_on();
  CHECK(problem_with_success(cat(daemon.socket(), {"1/1"}), file, 0, file.size) == "");
}

TEST_CASE("the tools ask the daemon that NVR_SOCKET names, unless they are told another", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100);
  const DaemonProcess daemon = site.start();
  setenv("NVR_SOCKET", daemon.socket().c_str(), 1);
  const ProgramResult read = run_program({path_of_cat(), "1/1"});
  const ProgramResult asked = run_program({path_of_ctl(), "status"});
  setenv("NVR_SOCKET", "/nonexistent", 1);
  const ProgramResult told = run_program({path_of_ctl(), "--socket", daemon.socket(), "status"});
  unsetenv("NVR_SOCKET");
  CHECK(problem_with_success(read, file, 0, file.size) == "");
  CHECK(to_string(asked.exit) == "exit 0");
  CHECK(to_string(told.exit) == "exit 0");
}

TEST_CASE("nvr-cat whose reader goes away ends without a word", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  shm::UniqueFd read_end(ends[0]);
  shm::UniqueFd write_end(ends[1]);
  const Capture errors;
  Process process =
      spawn({.argv = {path_of_cat(), "--socket", daemon.socket(), "1/1"}, .uid = {}, .max_descriptors = {}},
            write_end.get(), errors.fd());
  write_end.reset();
  char byte = 0;
  REQUIRE(read(read_end.get(), &byte, 1) == 1);
  read_end.reset();
  const auto exit = process.wait();
  REQUIRE(exit.has_value());
  CHECK(*exit != Exit{.code = 0, .signal = {}});
  CHECK(errors.text() == "");
  CHECK(daemon.wait_for_total("connections_now", 0));
}

TEST_CASE("nvr-cat used wrongly is exit 2", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"3/1", "3/2"},
      {"3/1", "--range", "5"},
      {"3/1", "--range", "a-b"},
      {"3/1", "--range", "-5"},
      {"3/1", "--priority", "urgent"},
      {"3/1", "--timeout", "soon"},
      {"3/1", "--timeout", "-1"},
      {"3/1", "--resume", "0"},
      {"3/1", "--frobnicate"},
  };
  for (const auto& arguments : wrong) {
    CAPTURE(arguments);
    CHECK(problem_with_failure(cat(daemon.socket(), arguments), 2, {}) == "");
  }
  const auto without_socket = run_program({path_of_cat(), "3/1"});
  CHECK(problem_with_failure(without_socket, 2, {"--socket"}) == "");
}

}  // namespace
}  // namespace nvr::test
