// client/examples, as they are: each reads real recordings, and every byte is compared. And nvr/asio.h beyond
// what its example shows.
#include <unistd.h>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>

#include "nvr/asio.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

std::string example(const std::string& name) {
  return std::string(NVR_TEST_EXAMPLES) + "/nvr-example-" + name;
}

// Runs a program that is to write the recording to its standard output. What went wrong; empty if nothing.
std::string problem_printing(const std::vector<std::string>& argv, const RecordingFile& file) {
  const ProgramResult result = run_program(argv);
  if (result.exit != Exit{.code = 0, .signal = {}}) return to_string(result.exit) + ": " + result.errors;
  if (result.output.size() != file.size) return std::to_string(result.output.size()) + " bytes";
  return file.difference(0, std::as_bytes(std::span(result.output)));
}

// Runs a program that says in one line that the recording 9/9 does not exist.
void require_not_found(const std::vector<std::string>& argv) {
  const ProgramResult result = run_program(argv);
  CHECK(result.exit == Exit{.code = 1, .signal = {}});
  CHECK_THAT(result.errors, Catch::Contains("recording 9/9 does not exist"));
}

TEST_CASE("examples: the readers in C++, C and Python print exact bytes, and say what is wrong") {
  const Site site;
  const RecordingFile file = site.record({3, 1842086}, 5'000'001);
  const DaemonProcess daemon = site.start();
  SECTION("C++") {
    CHECK(problem_printing({example("reader"), daemon.socket(), "3/1842086"}, file) == "");
    require_not_found({example("reader"), daemon.socket(), "9/9"});
  }
  SECTION("C") {
    CHECK(problem_printing({example("reader-c"), daemon.socket(), "3", "1842086"}, file) == "");
    require_not_found({example("reader-c"), daemon.socket(), "9", "9"});
  }
  SECTION("Python") {
    if (kSanitized) {
      SUCCEED("a library with sanitizers needs an interpreter with them");
      return;
    }
    const std::string python = "/usr/bin/python3";
    if (access(python.c_str(), X_OK) != 0) return skip_or_fail("there is no " + python);
    const std::vector<std::string> argv = {python, NVR_TEST_PYTHON_EXAMPLE, NVR_TEST_LIBRARY,
                                           daemon.socket()};
    const auto with = [&](const std::string& stream, const std::string& recording) {
      auto all = argv;
      all.insert(all.end(), {stream, recording});
      return all;
    };
    CHECK(problem_printing(with("3", "1842086"), file) == "");
    require_not_found(with("9", "9"));
  }
}

TEST_CASE("examples: the event loops copy many recordings at a time, and say what is wrong") {
  const Site site;
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < 12; ++i) files.push_back(site.record({1, i}, 500'000 * i + i));
  const DaemonProcess daemon = site.start();
  for (const char* const name : {"epoll", "asio"}) {
    CAPTURE(name);
    const TempDir copies;
    std::vector<std::string> argv = {example(name), daemon.socket()};
    for (const RecordingFile& file : files) {
      argv.push_back(to_string(file.id));
      argv.push_back(copies / file_name_of(file.id));
    }
    const ProgramResult result = run_program(argv);
    CHECK(result.errors == "");
    REQUIRE(result.exit == Exit{.code = 0, .signal = {}});
    for (const RecordingFile& file : files) {
      const std::string copy = read_file(copies / file_name_of(file.id));
      REQUIRE(copy.size() == file.size);
      CHECK(file.difference(0, std::as_bytes(std::span(copy))) == "");
    }
    require_not_found({example(name), daemon.socket(), "1/3", copies / "one", "9/9", copies / "two"});
  }
}

// ---- nvr/asio.h
// -------------------------------------------------------------------------------------------------

TEST_CASE("asio: completions come later, one at a time, by the executor of the handler") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 2 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  boost::asio::io_context io(1);
  boost::asio::io_context other(1);
  AsioClient client(io.get_executor(), connect_to(daemon));
  auto stream = client.open({.recording = file.id});
  REQUIRE(stream.has_value());
  ChunkChecker checker(file, 0, file.size);
  int completed = 0;
  const auto take = [&](const Stream::NextResult& next) {
    ++completed;
    REQUIRE(code_of(next) == Code::kOk);
    REQUIRE(checker.accept(**next));
  };
  Code refused = Code::kOk;
  async_next(*stream, boost::asio::bind_executor(other.get_executor(), take));
  async_next(*stream, [&](const Stream::NextResult& next) { refused = code_of(next); });
  CHECK(completed == 0);
  io.run();
  CHECK((refused == Code::kFailedPrecondition || refused == Code::kOk));
  CHECK(completed == 0);  // not by this executor
  other.run();
  CHECK(completed == 1);
  io.restart();
  if (refused == Code::kFailedPrecondition) {
    async_next(*stream, take);
    io.run();
  }
  Code last = Code::kUnknown;
  bool has_ended = false;
  io.restart();
  async_next(*stream, [&](const Stream::NextResult& next) {
    last = code_of(next);
    has_ended = !next;
  });
  io.run();
  CHECK(last == Code::kOk);
  CHECK(has_ended);
}

TEST_CASE("asio: a future, a playlist, a timer that cancels, and what is destroyed") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kChunkBytes + 1);
  DaemonProcess daemon = site.start();
  boost::asio::io_context io(1);
  std::optional<AsioClient> client;
  client.emplace(io.get_executor(), connect_to(daemon));
  SECTION("a playlist by futures") {
    auto playlist = client->open({{file.id, 0, file.size}, {file.id, 5, 10}});
    REQUIRE(playlist.has_value());
    std::uint64_t bytes = 0;
    for (;;) {
      auto future = async_next(*playlist, boost::asio::use_future);
      io.restart();
      io.run();
      const auto next = future.get();
      if (!next) break;
      REQUIRE(next->has_value());
      bytes += (*next)->bytes().size();
    }
    CHECK(bytes == file.size + 5);
  }
  // Nothing more comes of a recording that is followed.
  auto stream = client->open({.recording = file.id, .begin = file.size, .follow = std::chrono::hours(1)});
  REQUIRE(stream.has_value());
  std::optional<AsioStream> waiting(std::move(*stream));
  client.reset();  // streams outlive it
  std::optional<Code> code;
  const auto hear = [&](const Stream::NextResult& next) { code = code_of(next); };
  SECTION("a timer that cancels") {
    async_next(*waiting, hear);
    boost::asio::steady_timer timer(io, std::chrono::milliseconds(20));
    timer.async_wait([&](const boost::system::error_code&) { waiting->cancel(); });
    io.restart();
    io.run();
    CHECK(code == Code::kCancelled);
  }
  SECTION("destroyed while somebody waits") {
    async_next(*waiting, hear);
    io.restart();
    io.poll();
    CHECK_FALSE(code.has_value());
    waiting.reset();
    CHECK_FALSE(code.has_value());
    io.run();
    CHECK(code == Code::kCancelled);
  }
  SECTION("the daemon goes") {
    async_next(*waiting, hear);
    io.restart();
    io.poll();
    daemon.kill();
    io.run();
    CHECK(code == Code::kUnavailable);
  }
}

}  // namespace
}  // namespace nvr::test
