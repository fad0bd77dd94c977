// nvr-readerctl status: what it says while streams are read, and while the disk hangs.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

void check_histograms(const nlohmann::json& status) {
  const auto& histograms = status.at("histograms");
  for (const char* const name : {"open_us", "read_us", "queue_wait_us", "first_chunk_us"}) {
    CAPTURE(name);
    const auto& histogram = histograms.at(name);
    std::uint64_t sum = 0;
    std::uint64_t last_bound = 0;
    for (const auto& bucket : histogram.at("buckets")) {
      sum += bucket.at("count").get<std::uint64_t>();
      CHECK(bucket.at("le_us").get<std::uint64_t>() > last_bound);
      last_bound = bucket.at("le_us").get<std::uint64_t>();
    }
    CHECK(sum == histogram.at("count").get<std::uint64_t>());
  }
}

TEST_CASE("status says what is being read and its histograms add up") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes + 1);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 8});
  Client other = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  for (int i = 0; i < 5; ++i) CHECK(problem_reading(client, file) == "");
  Stream first = open_stream(client, file);
  Stream second = open_stream(client, file);
  Stream missing = open_stream(client, {.recording = {9, 9}});
  CHECK(code_of(missing.next()) == Code::kNotFound);
  REQUIRE(daemon.wait_for_total("chunks", 5 * 101 + 2 * 8));

  const auto status = daemon.status();
  CAPTURE(status.dump(2));
  CHECK(status.at("engine") == engine_under_test());
  CHECK(status.at("directory") == site.directory());
  CHECK(status.at("pid") == daemon.pid());
  CHECK(status.at("uptime_s").get<double>() > 0);
  CHECK(status.at("stall").at("stuck") == false);
  const auto& totals = status.at("totals");
  CHECK(totals.at("connections_now") == 2);
  CHECK(totals.at("control_connections_now") == 1);
  CHECK(totals.at("streams_open") == 2);
  CHECK(totals.at("opens") == 8);
  CHECK(totals.at("errors") == 1);
  CHECK(totals.at("errors_of_requests") == 1);
  CHECK(totals.at("errors_of_disk") == 0);
  CHECK(totals.at("errors_of_clients") == 0);
  CHECK(totals.at("violations") == 0);
  CHECK(totals.at("bytes") == 5 * file.size + 16 * kChunkBytes);
  REQUIRE(status.at("connections").size() == 2);
  std::uint64_t chunks = 0;
  for (const auto& connection : status.at("connections")) {
    CHECK(connection.at("pid") == getpid());
    CHECK(connection.at("uid") == getuid());
    chunks += connection.at("chunks").get<std::uint64_t>();
  }
  CHECK(chunks == totals.at("chunks").get<std::uint64_t>());
  CHECK(status.at("histograms").at("open_us").at("count") == 8);
  CHECK(status.at("histograms").at("queue_wait_us").at("count") == 8);
  CHECK(status.at("histograms").at("first_chunk_us").at("count") == 7);
  CHECK(status.at("histograms").at("read_us").at("count") > 0);
  check_histograms(status);
}

TEST_CASE("status says what was learnt of a spinning disk, and who waits for it") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300 * kChunkBytes);
  const DaemonProcess daemon = site.start({"--device-kind", "rotational"});
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 8});
  CHECK(daemon.status().at("visits").at("count") == 0);
  evict(file.path);
  CHECK(problem_reading(client, file) == "");
  const auto status = daemon.status();
  CAPTURE(status.dump(2));
  const auto& visits = status.at("visits");
  CHECK(visits.at("count") > 0);
  CHECK(visits.at("visit_bytes") >= 2 << 20);
  CHECK(visits.at("visit_bytes") <= 8 << 20);
  CHECK(visits.at("visit_s") > visits.at("positioning_s"));
  CHECK(visits.at("disk_bytes_per_s") > 0);
  CHECK(visits.at("efficiency") > 0);
  CHECK(visits.at("efficiency") <= 1);
  CHECK(status.at("totals").at("streams_waiting") == 0);

  Stream stream = open_stream(client, file);  // its window becomes full, and then it waits for its reader
  REQUIRE(daemon.wait_for_total("chunks", 300 + 8));
  CHECK(daemon.wait_for_total("streams_waiting", 0));
  CHECK(daemon.total("streams_open") == 1);
}

TEST_CASE("status knows no visits of a disk without a head", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start({"--device-kind", "solid"});
  CHECK(daemon.status().at("visits").is_null());
}

TEST_CASE("status is consistent while streams run at full speed", "[once]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, scaled(4000, 500) * kChunkBytes);
  const DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  std::string problem = "not run";
  std::thread reader([&] {
    Client client = connect_to(socket);
    problem = problem_reading(client, file);
  });
  std::uint64_t last_chunks = 0;
  for (int i = 0; i < 10; ++i) {
    const auto status = daemon.status();
    check_histograms(status);
    const auto chunks = status.at("totals").at("chunks").get<std::uint64_t>();
    CHECK(chunks >= last_chunks);
    last_chunks = chunks;
  }
  reader.join();
  CHECK(problem == "");
  CHECK(daemon.total("chunks") == file.size / kChunkBytes);
}

TEST_CASE("status answers while the disk hangs and says what hangs") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 1842086}, 10 * kChunkBytes, 1);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  disk.stall_reads(file.id);
  Stream stream = open_stream(client, file);
  // On a busy machine the open before it may have been slow enough to show as well.
  auto stall = daemon.status().at("stall");
  REQUIRE(wait_until([&] {
    stall = daemon.status().at("stall");
    return stall.at("stuck") == true && stall.at("operation") == "read";
  }));
  CHECK(stall.at("recording") == "3/1842086");
  CHECK(daemon.total("streams_waiting") == 1);
  CHECK(stall.at("operation") == "read");
  CHECK(stall.at("since_s").get<double>() > 0);

  // The same in shared memory, for every client, without asking.
  const DiskStatus seen = client.disk_status();
  CHECK(seen.stuck);
  CHECK(seen.recording == file.id);
  CHECK_FALSE(seen.opening);
  CHECK(seen.stuck_for > std::chrono::nanoseconds(0));
  const auto late = stream.next(in(std::chrono::milliseconds(10)));
  REQUIRE(code_of(late) == Code::kDeadlineExceeded);
  CAPTURE(late->error().message);
  CHECK(late->error().message.find("stuck") != std::string::npos);

  disk.release();
  CHECK(problem_reading(stream, file, 0, file.size) == "");
  CHECK(wait_until([&] { return daemon.status().at("stall").at("stuck") == false; }));
}

TEST_CASE("status without --json is for people", "[once]") {
  const Site site;
  const DaemonProcess daemon = site.start();
  const auto result = run_program({path_of_ctl(), "--socket", daemon.socket(), "status"});
  CHECK(to_string(result.exit) == "exit 0");
  CHECK(result.errors.empty());
  CHECK(result.output.find(engine_under_test()) != std::string::npos);
  CHECK(result.output.find(site.directory()) != std::string::npos);
}

TEST_CASE("status of a daemon that is not there is a clear error", "[once]") {
  const Site site;
  const auto result = run_program({path_of_ctl(), "--socket", site.socket(), "status", "--json"});
  CHECK(to_string(result.exit) == "exit 6");
  CHECK(result.output.empty());
  CHECK(result.errors.find(site.socket()) != std::string::npos);
}

}  // namespace
}  // namespace nvr::test
