// SIGTERM and SIGINT: clients are told, the path is released, exit 0 - whatever the disk does.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <thread>

#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

// The design says a second. What is asserted is that nothing had to time out.
constexpr std::chrono::seconds kSoon{scaled(5, 30)};

TEST_CASE("a signal ends the daemon and tells its clients") {
  for (const int signal : {SIGTERM, SIGINT}) {
    CAPTURE(signal);
    const Site site;
    const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
    DaemonProcess daemon = site.start();
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
    Client idle = connect_to(daemon);
    Stream stream = open_stream(client, file);
    REQUIRE(daemon.wait_for_total("chunks", 4));
    const auto before = std::chrono::steady_clock::now();
    daemon.signal(signal);
    const auto exit = daemon.wait();
    CHECK(std::chrono::steady_clock::now() - before < kSoon);
    REQUIRE(exit.has_value());
    CHECK(to_string(*exit) == "exit 0");
    CHECK_FALSE(std::filesystem::exists(site.socket()));
    ChunkChecker checker(file, 0, file.size);
    const Outcome outcome = drain(stream, &checker);
    CHECK(outcome.problem == "");
    CHECK(outcome.chunks == 4);  // what was published
    REQUIRE(outcome.error.has_value());
    CHECK(outcome.error->code == Code::kUnavailable);
    auto late = idle.open({.recording = file.id});
    if (late) {
      CHECK(code_of(late->next()) == Code::kUnavailable);
    } else {
      CHECK(late.error().code == Code::kUnavailable);
    }
  }
}

TEST_CASE("a signal ends the daemon while the disk hangs") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 10 * kChunkBytes, 1);
  DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  disk.stall_reads(file.id);
  Stream stream = open_stream(client, file);
  REQUIRE(wait_until([&] { return client.disk_status().stuck; }));
  std::optional<Error> error;
  std::thread blocked([&] {
    if (auto next = stream.next(); next && !*next) error = next->error();
  });
  const auto before = std::chrono::steady_clock::now();
  CHECK(to_string(daemon.terminate()) == "exit 0");
  CHECK(std::chrono::steady_clock::now() - before < kSoon);
  blocked.join();
  REQUIRE(error.has_value());
  CHECK(error->code == Code::kUnavailable);
  CHECK_FALSE(std::filesystem::exists(site.socket()));
}

TEST_CASE("a signal in the middle of many connections and handshakes") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  for (int i = 0; i < scaled(20, 5); ++i) {
    CAPTURE(i);
    DaemonProcess daemon = site.start();
    std::thread storm([&] {
      for (;;) {
        auto client = Client::connect(daemon.socket(), {.streams = 2, .slots_per_stream = 2});
        if (!client) return;
        auto stream = client->open({.recording = file.id});
        if (stream) static_cast<void>(stream->next());
      }
    });
    std::this_thread::sleep_for(std::chrono::microseconds(pick(test_random(), 0, 20'000)));
    CHECK(to_string(daemon.terminate()) == "exit 0");
    storm.join();
  }
}

TEST_CASE("options that cannot be right are exit 2 and one clear line", "[once]") {
  const Site site;
  const std::vector<std::vector<std::string>> wrong = {
      {"--dir", site.directory()},
      {"--socket", site.socket()},
      {"--dir", site.directory(), "--socket", site.socket(), "--engine", "floppy"},
      {"--dir", site.directory(), "--socket", site.socket(), "--max-clients", "0"},
      {"--dir", site.directory(), "--socket", site.socket(), "--max-clients", "many"},
      {"--dir", site.directory(), "--socket", site.socket(), "--client-memory", "-1"},
      {"--dir", site.directory(), "--socket", site.socket(), "--slow-op-ms", "soon"},
      {"--dir", site.directory(), "--socket", site.socket(), "--device-kind", "tape"},
      {"--dir", site.directory(), "--socket", site.socket(), "--allow-uid", "root?"},
      {"--dir", site.directory(), "--socket", site.socket(), "--frobnicate"},
      {"--dir", site.directory(), "--socket", site.socket(), "stray"},
  };
  for (const auto& arguments : wrong) {
    std::vector<std::string> argv = {path_of_daemon()};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    CAPTURE(arguments);
    const auto result = run_program(argv);
    CAPTURE(result.errors);
    CHECK(to_string(result.exit) == "exit 2");
    CHECK(std::count(result.errors.begin(), result.errors.end(), '\n') == 1);
    CHECK(result.output.empty());
  }
}

}  // namespace
}  // namespace nvr::test
