// Disks that hang and daemons that die under the streamer: their viewers are told, and catch up exactly;
// those of other disks notice nothing.
#include <catch2/catch.hpp>

#include "tests/streamer/streamer_process.h"
#include "tests/support/slow_disk.h"

namespace nvr::test {
namespace {

constexpr std::uint64_t kLong = 24 << 20;  // more than the sockets' buffers and the windows hold

std::string from(std::uint64_t offset) {
  return "Range: bytes=" + std::to_string(offset) + "-";
}

std::string difference(const RecordingFile& file, std::uint64_t offset, const std::string& found) {
  return file.difference(offset, std::as_bytes(std::span(found)));
}

bool is_state(const StreamerProcess& streamer, const std::string& disk, const std::string& state,
              unsigned status) {
  const Reply reply = ask(streamer, "/healthz/" + disk);
  return reply.status == status && reply.body.find("\"" + state + "\"") != std::string::npos;
}

TEST_CASE("viewers of one disk do not notice that another one hangs") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site dying_site;
  const Site healthy_site;
  SlowDisk disk(dying_site.directory());
  const RecordingFile stuck = make_recording(disk.backing(), {1, 1}, 300'000, 1);
  const RecordingFile cold = make_recording(disk.backing(), {1, 2}, 300'000, 2);
  const RecordingFile healthy = healthy_site.record({2, 1}, 20'000'001);
  const DaemonProcess dying_daemon = dying_site.start();
  const DaemonProcess healthy_daemon = healthy_site.start();
  const ReleaseAtEnd release(disk);
  const StreamerProcess streamer(
      {{"dying", dying_daemon.socket()}, {"healthy", healthy_daemon.socket()}},
      {"--open-timeout", "600", "--stall-timeout", "600", "--write-timeout", "600"});
  disk.stall_reads(stuck.id);
  std::vector<Wire> waiting;
  for (int i = 0; i < 3; ++i) waiting.emplace_back(streamer.port());
  waiting[0].ask("/dying/1/1");
  waiting[1].ask("/1/1", {from(200'000)});
  waiting[2].ask("/dying/1/1", {}, "HEAD");
  disk.wait_until_stuck(stuck.id);
  // All of this happens while those three wait; four viewers at a time, and one that reads slowly.
  Wire slow(streamer.port());
  slow.ask("/healthy/2/1");
  CHECK(slow.receive_head().status == 200);
  for (int turn = 0; turn < 3; ++turn) {
    std::vector<Wire> viewers;
    for (int i = 0; i < 4; ++i) viewers.emplace_back(streamer.port());
    for (Wire& viewer : viewers) viewer.ask("/healthy/2/1");
    for (Wire& viewer : viewers) CHECK(problem_with(viewer.receive(), 200, healthy, 0, healthy.size) == "");
  }
  CHECK(problem_with(ask(streamer, "/healthy/2/1", {from(19'000'000)}), 206, healthy, 19'000'000,
                     healthy.size) == "");
  CHECK(wait_until([&] { return is_state(streamer, "dying", "stuck", 503); }));
  CHECK(is_state(streamer, "healthy", "ok", 200));
  CHECK(ask(streamer, "/healthz").status == 200);
  CHECK(streamer.metric("nvr_streamer_disk_up{disk=\"dying\"}") == 0);
  CHECK(streamer.metric("nvr_streamer_disk_up{disk=\"healthy\"}") == 1);
  const std::string body = slow.take(healthy.size);
  CHECK(body.size() == healthy.size);
  CHECK(difference(healthy, 0, body) == "");
  for (const Wire& wire : waiting) CHECK_FALSE(wire.has_news());

  disk.release();
  CHECK(problem_with(waiting[0].receive(), 200, stuck, 0, stuck.size) == "");
  CHECK(problem_with(waiting[1].receive(), 206, stuck, 200'000, stuck.size) == "");
  CHECK(waiting[2].receive(true).status == 200);
  CHECK(problem_with(ask(streamer, "/dying/1/2"), 200, cold, 0, cold.size) == "");
  CHECK(wait_until([&] { return is_state(streamer, "dying", "ok", 200); }));
}

TEST_CASE("one place that cannot be read is no disk in trouble: its other recordings are served") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile stuck = make_recording(disk.backing(), {1, 1}, 300'000, 1);
  DaemonOptions options = site.options();
  options.engine = "io_uring";
  const DaemonProcess daemon(std::move(options));
  const ReleaseAtEnd release(disk);
  const StreamerProcess streamer({{"a", daemon.socket()}}, {"--open-timeout", "600"});
  disk.stall_reads(stuck.id);
  Wire waiting(streamer.port());
  waiting.ask("/a/1/1");
  disk.wait_until_stuck(stuck.id);
  REQUIRE(wait_until([&] { return is_state(streamer, "a", "stuck", 503); }));  // nothing else was asked for
  std::uint32_t next = 2;
  CHECK(wait_until([&] {
    const RecordingFile other = make_recording(disk.backing(), {1, next}, 100'000, next);
    CHECK(problem_with(ask(streamer, "/a/1/" + std::to_string(next++)), 200, other, 0, other.size) == "");
    return is_state(streamer, "a", "operation_stuck", 200) &&
           streamer.metric("nvr_streamer_disk_up{disk=\"a\"}") == 1;
  }));
  CHECK_FALSE(waiting.has_news());
  disk.release();
  CHECK(problem_with(waiting.receive(), 200, stuck, 0, stuck.size) == "");
}

TEST_CASE(
    "a disk that does not answer is a 503 that says when to come back, and says so sooner once it is known") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 300'000, 1);
  const DaemonProcess daemon = site.start();
  const ReleaseAtEnd release(disk);
  const StreamerProcess streamer({{"a", daemon.socket()}}, {"--open-timeout", "5"});
  disk.stall_opens(file.id);
  for (int i = 0; i < 2; ++i) {
    const Reply reply = ask(streamer, "/a/1/1");
    CHECK(reply.status == 503);
    CHECK(reply.header("retry-after") == "2");
    CHECK_THAT(reply.body, Catch::Contains("the disk has been stuck for"));
  }
  // Whoever leaves while the disk hangs is noticed.
  {
    Wire gone(streamer.port());
    gone.ask("/a/1/1");
  }
  disk.release();
  CHECK(wait_until([&] { return ask(streamer, "/a/1/1").status == 200; }));
  CHECK(problem_with(ask(streamer, "/a/1/1"), 200, file, 0, file.size) == "");
  CHECK(wait_until([&] { return streamer.metric("nvr_streamer_connections") == 1; }));
}

TEST_CASE("a request that waits for a stream behind a disk that hangs is a 503 that says so") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile stuck = make_recording(disk.backing(), {1, 1}, 300'000, 1);
  const RecordingFile file = make_recording(disk.backing(), {1, 2}, 300'000, 2);
  const DaemonProcess daemon = site.start();
  const ReleaseAtEnd release(disk);
  const StreamerProcess streamer({{"a", daemon.socket()}}, {"--open-timeout", "5", "--streams", "1"});
  disk.stall_opens(stuck.id);
  Wire first(streamer.port());
  first.ask("/a/1/1");
  disk.wait_until_stuck(stuck.id);
  const Reply queued = ask(streamer, "/a/1/2");
  CHECK(queued.status == 503);
  CHECK(queued.header("retry-after") == "2");
  CHECK_THAT(queued.body, Catch::Contains("the disk has been stuck for"));
  CHECK(first.receive().status == 503);
  disk.release();
  CHECK(wait_until([&] { return ask(streamer, "/a/1/2").status == 200; }));
  CHECK(problem_with(ask(streamer, "/a/1/2"), 200, file, 0, file.size) == "");
}

TEST_CASE("a disk that sleeps spins up in 13 s, and then its recording plays") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 300'000, 1);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}}, {});
  disk.order("stall for 13s");
  CHECK(problem_with(ask(streamer, "/a/1/1"), 200, file, 0, file.size) == "");
}

TEST_CASE("a disk that goes silent in mid-body: the connection is cut, and the rest can be asked for later") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, kLong, 1);
  const DaemonProcess daemon = site.start();
  const ReleaseAtEnd release(disk);
  const StreamerProcess streamer({{"a", daemon.socket()}}, {"--open-timeout", "5", "--stall-timeout", "5"});
  Wire viewer(streamer.port());
  viewer.ask("/1/1");
  CHECK(viewer.receive_head().status == 200);
  std::string got = viewer.take(1 << 20);
  disk.stall_reads(file.id);
  got += viewer.take(file.size);
  CHECK(got.size() < file.size);
  CHECK(difference(file, 0, got) == "");
  CHECK(streamer.metric("nvr_streamer_connections_cut_total{reason=\"stall\"}") == 1);
  CHECK(ask(streamer, "/1/1", {from(got.size())}).status == 503);
  disk.release();
  Reply rest;
  CHECK(wait_until([&] { return (rest = ask(streamer, "/1/1", {from(got.size())})).status == 206; }));
  CHECK(problem_with(rest, 206, file, got.size(), file.size) == "");
}

TEST_CASE(
    "bytes that cannot be read are a 500, or the end of a response that has begun, and the others are "
    "served") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 3'000'000, 1);
  disk.fail_reads(file.id, 0, 4096);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  CHECK(ask(streamer, "/1/1").status == 500);
  CHECK(problem_with(ask(streamer, "/1/1", {from(2'000'000)}), 206, file, 2'000'000, file.size) == "");
  disk.release();
  disk.fail_reads(file.id, 2'500'000, 2'500'001);
  const Reply reply = ask(streamer, "/1/1", {from(1'000'000)});
  CHECK(reply.status == 206);  // it had begun
  CHECK_FALSE(reply.is_complete);
  CHECK(reply.body.size() <= 1'500'000);
  CHECK(difference(file, 1'000'000, reply.body) == "");
}

TEST_CASE("a response that fits into a stream's window is whole, or an error with a status") {
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  const RecordingFile file = make_recording(disk.backing(), {1, 1}, 3'000'000, 1);
  const RecordingFile stuck = make_recording(disk.backing(), {1, 2}, 400'000, 2);
  const DaemonProcess daemon = site.start();
  const ReleaseAtEnd release(disk);
  const StreamerProcess streamer({{"a", daemon.socket()}}, {"--open-timeout", "5", "--stall-timeout", "5"});
  disk.fail_reads(file.id, 450'000, 450'001);  // far behind the first chunk
  CHECK(ask(streamer, "/1/1", {"Range: bytes=0-524287"}).status == 500);
  CHECK(problem_with(ask(streamer, "/1/1", {"Range: bytes=1000000-1524287"}), 206, file, 1'000'000,
                     1'524'288) == "");
  // What hangs from its first chunk on.
  CHECK(ask(streamer, "/1/2", {"Range: bytes=0-99"}).status == 206);
  disk.stall_reads(stuck.id);
  CHECK(ask(streamer, "/1/2", {"Range: bytes=200000-399999"}).status == 503);
  CHECK(streamer.metric("nvr_streamer_connections_cut_total{reason=\"stall\"}") == 0);
  disk.release();
  CHECK(wait_until([&] { return ask(streamer, "/1/2").status == 200; }));
  CHECK(problem_with(ask(streamer, "/1/2"), 200, stuck, 0, stuck.size) == "");
}

TEST_CASE("a daemon that is killed and restarted: its viewers go on, every byte exact") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kLong);
  std::optional<DaemonProcess> daemon(site.start());
  const StreamerProcess streamer({{"a", site.socket()}}, {"--open-timeout", "600", "--stall-timeout", "600"});
  std::vector<Wire> viewers;
  for (int i = 0; i < 3; ++i) viewers.emplace_back(streamer.port());
  for (Wire& viewer : viewers) {
    viewer.ask("/1/1");
    CHECK(viewer.receive_head().status == 200);
  }
  daemon->kill();
  Wire newcomer(streamer.port());
  newcomer.ask("/1/1", {from(kLong - 1000)});
  CHECK(wait_until([&] { return is_state(streamer, "a", "away", 503); }));
  CHECK_FALSE(newcomer.has_news());
  daemon.emplace(site.start());
  CHECK(problem_with(newcomer.receive(), 206, file, kLong - 1000, kLong) == "");
  for (Wire& viewer : viewers) {
    const std::string body = viewer.take(file.size);
    CHECK(body.size() == file.size);
    CHECK(difference(file, 0, body) == "");
  }
  CHECK(wait_until([&] { return is_state(streamer, "a", "ok", 200); }));
}

TEST_CASE("a daemon that is not there is a 503 until it comes, also the first time") {
  const Site site;
  const Site healthy_site;
  const RecordingFile file = site.record({1, 1}, 100'000);
  const RecordingFile healthy = healthy_site.record({2, 1}, 100'000);
  const DaemonProcess healthy_daemon = healthy_site.start();
  const StreamerProcess streamer({{"a", site.socket()}, {"b", healthy_daemon.socket()}},
                                 {"--open-timeout", "5"});
  CHECK(ask(streamer, "/a/1/1").status == 503);
  CHECK(ask(streamer, "/1/1").status == 503);  // it may be there
  CHECK(problem_with(ask(streamer, "/2/1"), 200, healthy, 0, healthy.size) == "");
  CHECK(is_state(streamer, "a", "connecting", 503));
  std::optional<DaemonProcess> daemon(site.start());
  CHECK(wait_until([&] { return ask(streamer, "/1/1").status == 200; }));
  daemon->kill();
  const Reply reply = ask(streamer, "/1/1");
  CHECK(reply.status == 503);
  CHECK(reply.header("retry-after") == "2");
  daemon.emplace(site.start());
  CHECK(wait_until([&] { return ask(streamer, "/1/1").status == 200; }));
  CHECK(problem_with(ask(streamer, "/a/1/1"), 200, file, 0, file.size) == "");
}

}  // namespace
}  // namespace nvr::test
