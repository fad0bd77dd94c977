// C23 to C26: what fails, who gets to know, and what is logged.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/support/client_process.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint64_t kChunk = kChunkBytes;

int count_lines(const std::string& log, std::string_view part, std::string_view other_part = "") {
  std::istringstream lines(log);
  int count = 0;
  for (std::string line; std::getline(lines, line);)
    count += line.find(part) != std::string::npos && line.find(other_part) != std::string::npos ? 1 : 0;
  return count;
}

// How many warnings of an operation that has taken so long there can be, at 1 s, 2 s, 4 s, ...
int most_warnings(std::chrono::steady_clock::duration taken) {
  int most = 1;
  for (std::chrono::seconds at{2}; at <= taken; at *= 2) ++most;
  return most;
}

// How many of a histogram's values were at least `us`.
std::uint64_t count_above(const nlohmann::json& histogram, std::uint64_t us) {
  std::uint64_t count = 0;
  for (const auto& bucket : histogram.at("buckets")) {
    if (bucket.at("le_us").get<std::uint64_t>() / 2 >= us) count += bucket.at("count").get<std::uint64_t>();
  }
  return count;
}

TEST_CASE("C23 a killed daemon gives each pending request exactly one error and new opens the same",
          "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunk);
  DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  ClientProcess client = ClientProcess::start([&](const Reporter& reporter) {
    Client connection = connect_to(socket, {.streams = 8, .slots_per_stream = 2});
    std::vector<Stream> streams;
    for (int i = 0; i < 4; ++i) streams.push_back(open_stream(connection, file));
    for (Stream& stream : streams) Reporter::require(stream.info().has_value(), "not opened");
    reporter.line("open");
    while (access((site.root() / "go").c_str(), F_OK) != 0) std::this_thread::yield();
    for (Stream& stream : streams) {
      ChunkChecker checker(file, 0, file.size);
      const Outcome outcome = drain(stream, &checker);
      Reporter::require(outcome.problem.empty(), outcome.problem);
      Reporter::require(outcome.chunks == 2, "not the chunks that were published");
      Reporter::require(outcome.error && outcome.error->code == Code::kUnavailable, "no Unavailable");
    }
    auto late = connection.open({.recording = file.id});
    Reporter::require(!late && late.error().code == Code::kUnavailable, "a new open is not Unavailable");
    const auto info = connection.stat(file.id);
    Reporter::require(!info && info.error().code == Code::kUnavailable, "a new stat is not Unavailable");
    auto again = Client::connect(socket);
    Reporter::require(!again && again.error().code == Code::kUnavailable, "a new connect is not Unavailable");
  });
  REQUIRE(client.next_line() == "open");
  REQUIRE(daemon.wait_for_total("chunks", 4 * 2));
  daemon.kill();
  write_file(site.root() / "go", "");
  CHECK(client.failure() == "");
}

TEST_CASE("C24 a stuck read is logged once while it is stuck and at doubling intervals and when it ends") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 1842086}, 10 * kChunk, 1);
  const RecordingFile queued_file = make_recording(disk.backing(), {3, 7}, kChunk, 2);
  const DaemonProcess daemon = site.start();  // --slow-op-ms is 1000 by default
  Client client = connect_to(daemon, {.streams = engine_depth() + 2, .slots_per_stream = 2});
  disk.stall_reads(file.id);
  const auto before = std::chrono::steady_clock::now();
  Stream stream = open_stream(client, file);
  REQUIRE(daemon.wait_for_log("read from 3/1842086"));
  CHECK(std::chrono::steady_clock::now() - before >= std::chrono::seconds(1));
  CHECK(client.disk_status().stuck);
  Stream queued = open_stream(client, queued_file);
  // The second warning of the same operation comes when its time has doubled.
  REQUIRE(wait_until([&] { return count_lines(daemon.log(), "read from 3/1842086", "stuck") >= 2; }));
  CHECK(std::chrono::steady_clock::now() - before >= std::chrono::seconds(2));
  disk.release();
  CHECK(problem_reading(stream, file, 0, file.size) == "");
  CHECK(problem_reading(queued, queued_file, 0, queued_file.size) == "");
  CHECK(wait_until([&] { return count_lines(daemon.log(), "read from 3/1842086", "took") == 1; }));
  const std::string log = daemon.log();
  const int most = most_warnings(std::chrono::steady_clock::now() - before);
  CHECK(count_lines(log, "read from 3/1842086", "stuck") <= most);
  CHECK(count_lines(log, "read from 3/1842086") <= most + 2);  // of another read of it, too, that it "took"
  CHECK(count_lines(daemon.log(), "3/7", "took") == 0);
}

TEST_CASE("C23 an errno of the disk or its file system is DataLoss, at an open, a stat and a read") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile unopenable = make_recording(disk.backing(), {3, 1}, kChunk, 1);
  const RecordingFile unreadable = make_recording(disk.backing(), {3, 2}, kChunk, 2);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  for (const auto& [name, number] :
       std::initializer_list<std::pair<const char*, int>>{{"EIO", EIO},
                                                          {"EREMOTEIO", EREMOTEIO},
                                                          {"ENODATA", ENODATA},
                                                          {"EILSEQ", EILSEQ},
                                                          {"ENOLINK", ENOLINK},
                                                          {"ETIMEDOUT", ETIMEDOUT},
                                                          {"ESTALE", ESTALE},
                                                          {"ENODEV", ENODEV},
                                                          {"ENOTCONN", ENOTCONN}}) {
    CAPTURE(name);
    disk.order(std::string("fail ") + name + " opens file " + file_name_of(unopenable.id));
    disk.order(std::string("fail ") + name + " file " + file_name_of(unreadable.id));
    for (const RecordingFile& file : {unopenable, unreadable}) {
      const Outcome outcome = [&] {
        Stream stream = open_stream(client, file);
        return drain(stream);
      }();
      REQUIRE(outcome.error.has_value());
      CHECK(outcome.error->code == Code::kDataLoss);
      const int found = outcome.error->sys_errno;
      CHECK((found == number || (found == EIO && file.id == unreadable.id)));  // so says the page cache
    }
    const auto info = client.stat(unopenable.id);
    REQUIRE_FALSE(info.has_value());
    CHECK(info.error().code == Code::kDataLoss);
    CHECK(info.error().sys_errno == number);
    disk.release();
  }
  CHECK(problem_reading(client, unopenable) == "");
  CHECK(problem_reading(client, unreadable) == "");
}

TEST_CASE("C24 a stuck open is logged as an open") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 1842086}, kChunk, 1);
  const DaemonProcess daemon = site.start({"--slow-op-ms", "200"});
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  disk.stall_opens(file.id);
  Stream stream = open_stream(client, file);
  CHECK(daemon.wait_for_log("open 3/1842086"));
  CHECK(count_lines(daemon.log(), "took") == 0);
  disk.release();
  CHECK(problem_reading(stream, file, 0, file.size) == "");
  CHECK(wait_until([&] { return count_lines(daemon.log(), "open 3/1842086", "took") == 1; }));
}

TEST_CASE("C24 queue wait is measured apart from service time") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const unsigned depth = engine_depth();
  std::vector<RecordingFile> stuck_files;
  for (std::uint32_t i = 0; i < depth; ++i) {
    stuck_files.push_back(make_recording(disk.backing(), {1, i}, kChunk, i));
    disk.stall_opens({1, i});
  }
  const RecordingFile queued_file = make_recording(disk.backing(), {2, 1}, kChunk, 99);
  const DaemonProcess daemon = site.start({"--device-kind", "solid", "--io-depth", "64"});
  Client client = connect_to(daemon, {.streams = depth + 1, .slots_per_stream = 2});
  std::vector<Stream> stuck;
  daemon.stop();  // so that it finds all commands at once, when it goes on
  for (const RecordingFile& file : stuck_files) stuck.push_back(open_stream(client, file));
  Stream queued = open_stream(client, queued_file);
  const auto begun = std::chrono::steady_clock::now();
  daemon.go_on();
  REQUIRE(wait_until([&] { return client.disk_status().stuck; }));
  const auto stalled = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));  // what the histograms are to show
  const auto stall = std::chrono::steady_clock::now() - stalled;
  disk.release();
  CHECK(problem_reading(queued, queued_file, 0, queued_file.size) == "");
  for (std::size_t i = 0; i < stuck.size(); ++i)
    CHECK(problem_reading(stuck[i], stuck_files[i], 0, stuck_files[i].size) == "");
  const auto histograms = daemon.status().at("histograms");
  const auto all_but_the_stall = std::chrono::steady_clock::now() - begun - stall;
  constexpr std::uint64_t kLongUs = 2'097'152;                          // a bucket's bound, below the 2.5 s
  CHECK(count_above(histograms.at("queue_wait_us"), kLongUs) >= 1);     // the queued open
  CHECK(count_above(histograms.at("open_us"), kLongUs) >= depth);       // the stuck ones
  if (all_but_the_stall >= std::chrono::microseconds(kLongUs)) return;  // others may have taken as long
  CHECK(count_above(histograms.at("queue_wait_us"), kLongUs) == 1);
  CHECK(count_above(histograms.at("open_us"), kLongUs) == depth);
  CHECK(count_above(histograms.at("read_us"), kLongUs) == 0);
}

TEST_CASE("C25 an error in one stream leaves all others and the daemon alive") {
  const Site site;
  const RecordingFile good = site.record({1, 1}, 100 * kChunk + 1);
  const RecordingFile cut = site.record({1, 2}, 100 * kChunk);
  DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 8, .slots_per_stream = 4});
  Client neighbour = connect_to(daemon, {.streams = 1, .slots_per_stream = 4});
  Stream first = open_stream(client, good);
  Stream second = open_stream(neighbour, good, 1);
  Stream truncated = open_stream(client, cut);
  REQUIRE(truncated.info().has_value());
  REQUIRE(truncate(cut.path.c_str(), 20 * kChunk) == 0);
  Stream missing = open_stream(client, {.recording = {9, 9}});
  Stream beyond = open_stream(client, good, 0, good.size + 1);
  CHECK(code_of(missing.next()) == Code::kNotFound);
  CHECK(code_of(beyond.next()) == Code::kOutOfRange);
  const Outcome outcome = drain(truncated);
  REQUIRE(outcome.error.has_value());
  CHECK(outcome.error->code == Code::kDataLoss);
  CHECK(problem_reading(first, good, 0, good.size) == "");
  CHECK(problem_reading(second, good, 1, good.size) == "");
  CHECK(daemon.is_running());
  CHECK(daemon.total("errors") == 3);
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("C26 an I/O error is DataLoss with errno and offset for that stream") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile bad = make_recording(disk.backing(), {1, 1}, 64 * kChunk, 1);
  const RecordingFile good = make_recording(disk.backing(), {1, 2}, 64 * kChunk, 2);
  const std::uint64_t bad_begin = 40 * kChunk + 8192;
  const std::uint64_t bad_end = bad_begin + 4096;
  disk.fail_reads(bad.id, bad_begin, bad_end);
  DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
  Stream bystander = open_stream(client, good);
  for (int i = 0; i < 3; ++i) {
    CAPTURE(i);
    Stream stream = open_stream(client, bad);
    ChunkChecker checker(bad, 0, bad.size);
    const Outcome outcome = drain(stream, &checker);
    CHECK(outcome.problem == "");
    REQUIRE(outcome.error.has_value());
    CAPTURE(to_string(*outcome.error));
    CHECK(outcome.error->code == Code::kDataLoss);
    CHECK(outcome.error->sys_errno == EIO);
    CHECK(outcome.chunks == 40);
    CHECK(outcome.error->offset >= 40 * kChunk);
    CHECK(outcome.error->offset < bad_end);
  }
  CHECK(problem_reading(bystander, good, 0, good.size) == "");
  CHECK(problem_reading(client, bad, bad_end + 300'000, bad.size) == "");  // behind the bad place
  disk.release();
  CHECK(problem_reading(client, bad) == "");  // nothing remembers the error
  CHECK(daemon.is_running());
}

}  // namespace
}  // namespace nvr::test
