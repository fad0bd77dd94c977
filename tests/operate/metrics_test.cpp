// --metrics of the real daemon, with its sandbox on: the numbers are right, they are there while the disk
// hangs, and those who serve them can do nothing else.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "daemon/stall_clock.h"
#include "tests/operate/scrape.h"
#include "tests/support/client_process.h"
#include "tests/support/proc.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

const std::vector<std::string> kServed = {"--metrics", "127.0.0.1:0"};

std::vector<std::string> served_and(std::vector<std::string> more) {
  more.insert(more.end(), kServed.begin(), kServed.end());
  return more;
}

// The lines of a text without the values: every family's name, help and type, and every series.
std::set<std::string> names_in(const std::string& text) {
  std::set<std::string> names;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    names.insert(line.starts_with('#') ? line : line.substr(0, line.rfind(' ')));
  return names;
}

TEST_CASE("nvr-readerctl metrics says what the daemon serves by HTTP, name for name") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunkBytes);
  const std::string kind = GENERATE("rotational", "solid");
  const DaemonProcess daemon = site.start(served_and({"--device-kind", kind}));
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 4});
  CHECK(problem_reading(client, file) == "");
  const std::vector<std::string> argv = {path_of_ctl(), "--socket", daemon.socket(), "metrics"};
  const ProgramResult ctl = run_program(argv);
  CHECK(to_string(ctl.exit) == "exit 0");
  const std::set<std::string> said = names_in(ctl.output);
  CHECK(said.size() > 200);
  CHECK(said == names_in(http_get(metrics_url(daemon))));
  CHECK_THAT(ctl.output, Contains("nvr_readerd_published_chunks_total 20\n") &&
                             Contains("nvr_readerd_connections 1\n") &&
                             Contains("nvr_readerd_control_connections 1\n"));
  // A daemon that serves none knows them all the same.
  const Site other;
  const DaemonProcess silent = other.start({"--device-kind", kind});
  const ProgramResult asked = run_program({path_of_ctl(), "--socket", silent.socket(), "metrics"});
  CHECK_THAT(asked.output, Contains("nvr_readerd_control_connections 1\n"));
}

TEST_CASE("metrics count what was read, opened, refused and lent") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunkBytes + 1);
  const DaemonProcess daemon = site.start(served_and({"--device-kind", "rotational"}));
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 8});
  evict(file.path);
  CHECK(problem_reading(client, file) == "");  // from the disk
  CHECK(problem_reading(client, file) == "");  // from memory
  Stream missing = open_stream(client, {.recording = {9, 9}});
  CHECK(code_of(missing.next()) == Code::kNotFound);
  // Readers that look before they sleep may never have been woken; one in an event loop is.
  REQUIRE(client.dispatch().has_value());
  Stream held = open_stream(client, file);
  REQUIRE(daemon.wait_for_total("chunks", 2 * 21 + 8));
  Samples samples;
  REQUIRE(wait_until([&] {
    samples = scrape(daemon);
    return samples["nvr_readerd_slots_lent"] == 8 && samples["nvr_readerd_connections"] == 1;
  }));

  CHECK(samples["nvr_readerd_published_chunks_total"] == 2 * 21 + 8);
  CHECK(samples["nvr_readerd_published_bytes_total"] ==
        2 * static_cast<double>(file.size) + 8 * static_cast<double>(kChunkBytes));
  CHECK(samples["nvr_readerd_opens_total{result=\"Ok\"}"] == 3);
  CHECK(samples["nvr_readerd_opens_total{result=\"NotFound\"}"] == 1);
  CHECK(samples["nvr_readerd_stream_errors_total{errno=\"ENOENT\"}"] == 1);
  CHECK(samples["nvr_readerd_stream_errors_total{errno=\"EIO\"}"] == 0);
  CHECK(samples["nvr_readerd_errors_total{blame=\"request\"}"] == 1);
  CHECK(samples["nvr_readerd_errors_total{blame=\"disk\"}"] == 0);
  CHECK(samples["nvr_readerd_errors_total{blame=\"client\"}"] == 0);
  CHECK(samples["nvr_readerd_queue_wait_seconds_count"] == 4);
  CHECK(samples["nvr_readerd_open_seconds_count"] == 4);
  CHECK(samples["nvr_readerd_first_chunk_seconds_count"] == 3);
  CHECK(samples["nvr_readerd_first_chunk_seconds_bucket{le=\"+Inf\"}"] == 3);
  CHECK(samples["nvr_readerd_first_chunk_seconds_sum"] > 0);
  CHECK(samples["nvr_readerd_read_seconds_count{source=\"disk\"}"] > 0);
  CHECK(samples["nvr_readerd_read_seconds_count{source=\"memory\"}"] > 0);
  CHECK(samples["nvr_readerd_slots"] == 4 * 8);
  CHECK(samples["nvr_readerd_streams_open"] == 1);
  CHECK(samples["nvr_readerd_serving"] == 1);
  CHECK(samples["nvr_readerd_shared_memory_bytes"] >= 4 * 8 * static_cast<double>(kChunkBytes));
  CHECK(samples["nvr_readerd_quarantined_bytes"] == 0);
  CHECK(samples["nvr_readerd_visits_total"] > 0);
  CHECK(samples["nvr_readerd_disk_efficiency_ratio"] > 0);
  CHECK(samples["nvr_readerd_stall_age_seconds"] == 0);
  CHECK(samples["nvr_readerd_wakes_total"] > 0);
}

TEST_CASE("what is in memory and what comes from the disk are told apart, by every engine") {
  for (const char* const engine : {"mmap", "io_uring"}) {
    CAPTURE(engine);
    const Site site;
    const RecordingFile file = site.record({1, 1}, 200 * kChunkBytes);
    const RecordingFile cold = site.record({1, 2}, 200 * kChunkBytes);
    evict(cold.path);
    DaemonOptions options = site.options(served_and({"--device-kind", "solid"}));
    options.engine = engine;
    const DaemonProcess daemon(options);
    Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 8});
    const auto reads = [&](const char* source) {
      return scrape(daemon)[std::string("nvr_readerd_read_seconds_count{source=\"") + source + "\"}"];
    };
    std::array<double, 7> of_the_disk;  // in a pass over what is in memory, unless others need the memory
    for (double& count : of_the_disk) {
      const double before = reads("disk");
      CHECK(problem_reading(client, file) == "");
      count = reads("disk") - before;
    }
    std::ranges::sort(of_the_disk);
    CHECK(of_the_disk[of_the_disk.size() / 2] == 0);
    CHECK(reads("memory") > 0);
    const double before = reads("disk");
    CHECK(problem_reading(client, cold) == "");
    CHECK(reads("disk") > before);
  }
}

TEST_CASE("slots that were lent to clients that are gone are not lent any more") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start(kServed);
  {
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
    Stream stream = open_stream(client, file);
    REQUIRE(wait_until([&] { return scrape(daemon)["nvr_readerd_slots_lent"] == 4; }));
    CHECK(scrape(daemon)["nvr_readerd_slots"] == 8);
  }
  REQUIRE(wait_until([&] { return scrape(daemon)["nvr_readerd_slots"] == 0; }));
  CHECK(scrape(daemon)["nvr_readerd_slots_lent"] == 0);
  CHECK(scrape(daemon)["nvr_readerd_connections_accepted_total"] == 1);
}

TEST_CASE("metrics answer while the disk hangs, and say for how long it has") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {3, 1842086}, 10 * kChunkBytes, 1);
  const DaemonProcess daemon = site.start(served_and({"--slow-op-ms", "50", "--fail-fast", "1"}));
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  disk.stall_reads(file.id);
  Stream stream = open_stream(client, file);
  const ReleaseAtEnd release(disk);
  Samples samples;
  REQUIRE(wait_until([&] {
    samples = scrape(daemon);
    return samples["nvr_readerd_stall_age_seconds"] > 0.3 && samples["nvr_readerd_stall_seconds_total"] > 0.2;
  }));
  CHECK(samples["nvr_readerd_oldest_operation_age_seconds"] == samples["nvr_readerd_stall_age_seconds"]);
  CHECK(samples["nvr_readerd_operations_in_flight"] >= 1);
  CHECK(samples["nvr_readerd_streams_waiting"] == 1);
  CHECK(wait_until([&] { return scrape(daemon)["nvr_readerd_refuses_opens"] == 1; }));
  disk.release();
  CHECK(problem_reading(stream, file, 0, file.size) == "");
  REQUIRE(wait_until([&] { return scrape(daemon)["nvr_readerd_stall_age_seconds"] == 0; }));
  CHECK(scrape(daemon)["nvr_readerd_stall_seconds_total"] > 0.3);
}

TEST_CASE("the thread that serves the metrics is confined like the rest", "[plain]") {
  const Site site;
  const DaemonProcess daemon = site.start(kServed);
  for (int i = 0; i < 3; ++i) CHECK_FALSE(scrape(daemon).empty());
  CHECK_THAT(daemon.log(), Contains("sandbox: seccomp, "));
  int servers = 0;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(daemon.pid()) + "/task")) {
    const std::string status = read_file(task.path() / "status");
    CAPTURE(status);
    CHECK_THAT(status, Contains("Seccomp:\t2") && Contains("NoNewPrivs:\t1"));
    if (status.find("Name:\tmetrics\n") == std::string::npos) continue;
    ++servers;
    for (const char* const set : {"CapPrm:", "CapEff:", "CapInh:", "CapAmb:"})
      CHECK_THAT(status, Contains(set + std::string("\t0000000000000000")));
  }
  CHECK(servers == 1);
}

// Connections that stay open show, without a clock, that a scrape does not wait for them to be closed.
TEST_CASE("a scrape does not wait for connections that say nothing, or not all that they should") {
  const Site site;
  const DaemonProcess daemon = site.start(kServed);
  const auto port = static_cast<std::uint16_t>(std::stoi(metrics_url(daemon).substr(17)));
  std::vector<Wire> silent;
  for (int i = 0; i < 1'000; ++i) {
    silent.emplace_back(port);
    if (i % 2 == 0) silent.back().send("GET /metrics HT");
    if (i % 100 == 99) {
      CHECK_FALSE(scrape(daemon).empty());
      CHECK_FALSE(silent.back().has_news());  // it was not its end that made room
    }
  }
  CHECK(silent.front().is_closed_by_peer());
  silent.back().send("\r\n\r\n");
  CHECK(silent.back().receive().status == 400);
  CHECK(descriptors_of(daemon.pid()).size() <= 64 + 32);
}

TEST_CASE("what is no request for metrics is told so") {
  const Site site;
  const DaemonProcess daemon = site.start(kServed);
  const auto port = static_cast<std::uint16_t>(std::stoi(metrics_url(daemon).substr(17)));
  const auto status_of = [&](const std::string& target, const std::string& method) {
    Wire wire(port);
    wire.ask(target, {}, method);
    const Reply reply = wire.receive(method == "HEAD");
    CHECK((reply.is_complete || method == "HEAD"));
    CHECK(wire.is_closed_by_peer());
    return reply.status;
  };
  CHECK(status_of("/metrics", "GET") == 200);
  CHECK(status_of("/metrics?name=x", "GET") == 200);
  CHECK(status_of("/metrics", "HEAD") == 200);
  CHECK(status_of("/", "GET") == 404);
  CHECK(status_of("/metrics/", "GET") == 404);
  CHECK(status_of("/metrics", "POST") == 405);
  Wire endless(port);
  endless.send("GET /metrics HTTP/1.1\r\nX: " + std::string(20'000, '.'));
  CHECK(endless.is_closed_by_peer());
}

TEST_CASE("an address for metrics that cannot be is one clear line") {
  const Site site;
  const DaemonProcess daemon = site.start(kServed);
  const std::string url = metrics_url(daemon);
  const std::string taken = url.substr(7, url.find('/', 7) - 7);
  for (const std::string& address : {std::string("9464"), std::string("host.example:9464"),
                                     std::string("127.0.0.1:99999"), std::string("[::1:9464"), taken}) {
    CAPTURE(address);
    const auto result = run_program({path_of_daemon(), "--dir", site.directory(), "--socket",
                                     site.root() / "other.sock", "--log-level", "off", "--metrics", address});
    CHECK(to_string(result.exit) == "exit 2");
    CHECK_THAT(result.errors, Contains(address) && Contains("--metrics"));
    CHECK(std::count(result.errors.begin(), result.errors.end(), '\n') == 1);
  }
}

TEST_CASE("a stall clock counts what overlaps once") {
  daemon::StallClock clock;
  clock.record(100, 150);
  clock.record(100, 200);  // the same one, a heartbeat later
  clock.record(150, 180);  // another, within it
  CHECK(clock.stalled_ns() == 100);
  clock.record(190, 260);
  CHECK(clock.stalled_ns() == 160);
  clock.record(300, 310);
  CHECK(clock.stalled_ns() == 170);
}

}  // namespace
}  // namespace nvr::test
