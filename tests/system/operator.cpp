// nvr-readerctl for those who run a daemon: streams, stall-log, metrics, disconnect; and that all of it
// answers while the disk hangs.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/support/client_process.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;

ProgramResult ctl(const DaemonProcess& daemon, std::vector<std::string> arguments,
                  std::optional<uid_t> uid = {}) {
  std::vector<std::string> argv = {path_of_ctl(), "--socket", daemon.socket()};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return run_program(Command{.argv = argv, .uid = uid, .max_descriptors = {}});
}

std::string text_of(const DaemonProcess& daemon, std::vector<std::string> arguments) {
  const ProgramResult result = ctl(daemon, std::move(arguments));
  if (to_string(result.exit) != "exit 0" || !result.errors.empty())
    throw TestFailure(to_string(result.exit) + ": " + result.errors);
  return result.output;
}

json json_of(const DaemonProcess& daemon, std::vector<std::string> arguments) {
  arguments.emplace_back("--json");
  return json::parse(text_of(daemon, std::move(arguments)));
}

// The streams as the daemon has them once there are `count` and each waits for one of these.
json wait_for_streams(const DaemonProcess& daemon, std::size_t count, const std::string& waits_for) {
  json streams;
  const bool came = wait_until([&] {
    streams = json_of(daemon, {"streams"}).at("streams");
    return streams.size() == count &&
           std::ranges::all_of(streams, [&](const json& s) { return s.at("waits_for") == waits_for; });
  });
  if (!came) throw TestFailure("streams are " + streams.dump(2));
  return streams;
}

TEST_CASE("streams says who reads what, how far, and that it waits for its reader", "[once]") {
  const Site site;
  const RecordingFile file = site.record({3, 77}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  CHECK_THAT(text_of(daemon, {"streams"}), Contains("no stream is open"));
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 8});
  Stream stream = open_stream(client, file, kChunkBytes, 50 * kChunkBytes);
  Stream other = open_stream(client, file);

  json streams = wait_for_streams(daemon, 2, "reader");
  const json& first = streams[0].at("begin") == kChunkBytes ? streams[0] : streams[1];
  CAPTURE(first.dump(2));
  CHECK(first.at("pid") == getpid());
  CHECK(first.at("uid") == getuid());
  CHECK(first.at("process").get<std::string>() != "");
  CHECK(first.at("recording") == "3/77");
  CHECK(first.at("end") == 50 * kChunkBytes);
  CHECK(first.at("position") == 9 * kChunkBytes);
  CHECK(first.at("bytes") == 8 * kChunkBytes);
  CHECK(first.at("state") == "reading");
  CHECK(first.at("rate") > 0);
  const double waits_s = first.at("waits_s");
  CHECK(wait_for_streams(daemon, 2, "reader")[0].at("waits_s") > waits_s);  // the longer

  CHECK(problem_reading(stream, file, kChunkBytes, 50 * kChunkBytes) == "");
  streams = wait_for_streams(daemon, 1, "reader");
  CHECK(streams[0].at("end") == file.size);
  CHECK_THAT(text_of(daemon, {"streams"}), Contains("3/77") && Contains("reader"));
  other.close();
  static_cast<void>(wait_for_streams(daemon, 0, ""));
}

// The thread of the mmap engine is in the read that hangs: it shows what was so when that began.
TEST_CASE("a stream whose reader has emptied its window while the disk brings more waits for the disk",
          "[io_uring]") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 78}, 100 * kChunkBytes, 1);
  const DaemonProcess daemon = site.start({"--device-kind", "rotational"});
  const ReleaseAtEnd release(disk);
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  disk.set_read_latency(std::chrono::milliseconds(300));  // long enough to stall what comes next
  Stream stream = open_stream(client, file);
  {
    const auto first = stream.next(in(kLongEnough));
    REQUIRE((first && *first));
    disk.stall_reads(file.id);
    disk.wait_until_stuck(file.id);
    static_cast<void>(wait_for_streams(daemon, 1, "reader"));
  }
  for (;;) {
    const auto next = stream.next(in(std::chrono::milliseconds(500)));
    REQUIRE(next);
    if (*next) continue;
    CHECK(code_of(next) == Code::kDeadlineExceeded);
    break;
  }
  static_cast<void>(wait_for_streams(daemon, 1, "disk"));
}

TEST_CASE("all that nvr-readerctl can do it does while the disk hangs") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 1842086}, 10 * kChunkBytes, 1);
  const DaemonProcess daemon = site.start({"--slow-op-ms", "200"});
  const ReleaseAtEnd release(disk);
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  disk.stall_reads(file.id);
  Stream stream = open_stream(client, file);
  REQUIRE(wait_until([&] {
    const json stall = daemon.status().at("stall");
    return stall.value("operation", "") == "read" && stall.value("since_s", 0.0) >= 0.2;
  }));

  const json streams = wait_for_streams(daemon, 1, "disk");
  CHECK(streams[0].at("recording") == "3/1842086");
  CHECK(streams[0].at("bytes") == 0);
  CHECK(json_of(daemon, {"stall-log"}).at("stuck").at("recording") == "3/1842086");
  CHECK_THAT(text_of(daemon, {"stall-log"}), Contains("in progress: read 3/1842086"));
  CHECK_THAT(text_of(daemon, {"metrics"}),
             Contains("nvr_readerd_streams_waiting 1") && !Contains("nvr_readerd_stall_age_seconds 0\n"));
  CHECK_THAT(text_of(daemon, {"top", "--count", "1"}), Contains("STUCK") && Contains("3/1842086"));
  const json seen = json_of(daemon, {"top", "--count", "1"});
  CHECK(seen.at("streams")[0].at("waits_for") == "disk");
  CHECK(seen.at("status").at("stall").at("stuck") == true);

  const auto connection = streams[0].at("connection").get<int>();
  CHECK(json_of(daemon, {"disconnect", std::to_string(connection)}).at("disconnected").at("pid") == getpid());
  const auto next = stream.next(in(kLongEnough));
  REQUIRE(code_of(next) == Code::kUnavailable);
  CHECK_THAT(next->error().message, Contains("an operator disconnected"));
  CHECK(daemon.wait_for_log("as pid "));
  // It has left now, although the disk still has a read of its. Whatever is said of it agrees.
  CHECK(daemon.wait_for_log(" disconnected after 0 chunks"));
  REQUIRE(daemon.wait_for_total("streams_waiting", 0));
  CHECK(daemon.total("connections_now") == 0);
  CHECK(daemon.total("connections_leaving") == 1);
  CHECK(daemon.total("streams_open") == daemon.total("streams_ended"));
  CHECK_THAT(text_of(daemon, {"status"}),
             Contains("0 of 0 open streams wait for it, and 1 that has ended") &&
                 Contains("0 streams open now") &&
                 Contains("connections  0 now and 1 that has ended and waits for the disk"));
  CHECK_THAT(text_of(daemon, {"top", "--count", "1"}),
             Contains("0 streams of 0 connections, 0 wait for the disk"));

  disk.release();
  REQUIRE(daemon.wait_for_total("connections_now", 0));
  json log;
  REQUIRE(wait_until([&] {
    log = json_of(daemon, {"stall-log"});
    return log.at("stuck").is_null() && !log.at("operations").empty();
  }));
  CHECK(log.at("slow_from_s") == 0.2);
  const json& slow = log.at("operations").back();
  CHECK(slow.at("recording") == "3/1842086");
  CHECK(slow.at("operation") == "read");
  CHECK(slow.at("duration_s") >= 0.2);
  CHECK(slow.at("errno") == 0);
  CHECK(slow.at("pid") == getpid());
}

TEST_CASE("the stall log and the log name what the disk failed at, and for whom") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 9}, 40 * kChunkBytes, 1);
  const DaemonProcess daemon = site.start({"--slow-op-ms", "3600000"});
  CHECK_THAT(text_of(daemon, {"stall-log"}), Contains("none failed"));
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  const std::uint64_t bad = 20 * kChunkBytes;
  disk.fail_reads(file.id, bad, bad + 4096);
  constexpr int kTimes = 3;
  for (int i = 0; i < kTimes; ++i) {
    Stream stream = open_stream(client, file);
    CHECK(drain(stream).error.value_or(Error{}).code == Code::kDataLoss);
  }
  Stream missing = open_stream(client, {.recording = {9, 9}});  // the request's fault, not the disk's
  CHECK(code_of(missing.next()) == Code::kNotFound);

  json log;
  REQUIRE(wait_until([&] {
    log = json_of(daemon, {"stall-log"});
    return log.at("total") >= kTimes;
  }));
  CAPTURE(log.dump(2));
  CHECK(log.at("operations").size() == kTimes);
  for (const json& operation : log.at("operations")) {
    CHECK(operation.at("recording") == "3/9");
    CHECK(operation.at("errno") == EIO);
    CHECK(operation.at("offset") <= bad);
    CHECK(operation.at("offset").get<std::uint64_t>() + operation.at("length").get<std::uint64_t>() > bad);
    CHECK(operation.at("pid") == getpid());
    CHECK(operation.at("uid") == getuid());
  }
  CHECK_THAT(text_of(daemon, {"stall-log"}), Contains("3/9") && Contains("Input/output error"));
  for (const std::string& what : {std::string("read from 3/9 at offset "), std::string("failed after"),
                                  "client pid " + std::to_string(getpid()) + " uid "})
    CHECK(daemon.wait_for_log(what));
}

TEST_CASE("disconnect ends that connection, saying so, and no other", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client victim = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  const auto id = daemon.status().at("connections").at(0).at("id").get<int>();
  Client other = connect_to(daemon);
  Stream stream = open_stream(victim, file);
  REQUIRE(daemon.wait_for_total("chunks", 2));

  CHECK(to_string(ctl(daemon, {"disconnect", "4711"}).exit) == "exit 3");
  CHECK(to_string(ctl(daemon, {"disconnect", "-1"}).exit) == "exit 2");
  CHECK_THAT(text_of(daemon, {"disconnect", std::to_string(id)}),
             Contains("connection " + std::to_string(id)) && Contains(std::to_string(getpid())));
  const Outcome outcome = drain(stream);
  CHECK(outcome.chunks == 2);  // what had been published
  REQUIRE(outcome.error);
  CHECK(outcome.error->code == Code::kUnavailable);
  CHECK_THAT(outcome.error->message, Contains("an operator disconnected"));
  CHECK(problem_reading(other, file) == "");
  CHECK(to_string(ctl(daemon, {"disconnect", std::to_string(id)}).exit) == "exit 3");
}

TEST_CASE("only root and the daemon's own user may disconnect others", "[once]") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 10 * kChunkBytes);
  const DaemonProcess daemon = site.start({"--allow-uid", std::to_string(kNobody)});
  Client client = connect_to(daemon);
  const auto id = std::to_string(daemon.status().at("connections").at(0).at("id").get<int>());
  const auto denied = ctl(daemon, {"disconnect", id}, kNobody);
  CHECK(to_string(denied.exit) == "exit 8");
  CHECK_THAT(denied.errors, Contains("only root"));
  CHECK(to_string(ctl(daemon, {"disconnect", "4711"}, kNobody).exit) == "exit 8");  // nor learns who is there
  CHECK(to_string(ctl(daemon, {"streams"}, kNobody).exit) == "exit 0");
  CHECK(problem_reading(client, file) == "");
  CHECK(daemon.wait_for_log("uid " + std::to_string(kNobody) + " may not disconnect"));
}

}  // namespace
}  // namespace nvr::test
