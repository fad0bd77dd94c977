// nvr-streamer over real daemons: what it answers to what.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <thread>

#include "nvr/client.h"
#include "tests/streamer/streamer_process.h"
#include "tests/support/proc.h"
#include "tests/support/twin.h"

namespace nvr::test {
namespace {

using namespace std::string_literals;

std::string bytes(std::uint64_t first, std::uint64_t last) {
  return "Range: bytes=" + std::to_string(first) + "-" + std::to_string(last);
}

TEST_CASE("the streamer serves whole recordings and ranges of them, byte for byte") {
  const Site site;
  const RecordingFile file = site.record({3, 1842086}, 3'000'001);
  const RecordingFile small = site.record({3, 1}, 5);
  const RecordingFile empty = site.record({3, 2}, 0);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  for (const char* const target : {"/3/1842086", "/00000003001c1ba6", "/a/3/1842086", "/a/00000003001c1ba6"})
    CHECK(problem_with(ask(streamer, target), 200, file, 0, file.size) == "");
  CHECK(problem_with(ask(streamer, "/3/1"), 200, small, 0, 5) == "");
  CHECK(problem_with(ask(streamer, "/3/2"), 200, empty, 0, 0) == "");
  CHECK(problem_with(ask(streamer, "/3/1", {"Range: bytes=3-"}), 206, small, 3, 5) == "");
  CHECK(problem_with(ask(streamer, "/3/1", {"Range: bytes=-2"}), 206, small, 3, 5) == "");
  for (int turn = 0; turn < 50; ++turn) {
    const std::uint64_t first = pick(test_random(), 0, file.size - 1);
    const std::uint64_t last = pick(test_random(), first, file.size + 10);
    const std::uint64_t end = std::min(last + 1, file.size);
    CAPTURE(first, last);
    const Reply reply = ask(streamer, "/a/3/1842086", {bytes(first, last)});
    CHECK(problem_with(reply, 206, file, first, end) == "");
    CHECK(reply.header("content-range") ==
          "bytes " + std::to_string(first) + "-" + std::to_string(end - 1) + "/3000001");
  }
  // Several ranges at a time may be answered with the whole.
  CHECK(problem_with(ask(streamer, "/3/1842086", {"Range: bytes=0-1,5-6"}), 200, file, 0, file.size) == "");
}

TEST_CASE("HEAD tells the size, and conditions save the body") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  const Reply head = ask(streamer, "/1/1", {"Range: bytes=5-9"}, "HEAD");
  CHECK(head.status == 200);
  CHECK(head.header("content-length") == "300000");
  CHECK(head.header("accept-ranges") == "bytes");
  CHECK(head.header("content-type") == "application/octet-stream");
  const std::string etag = head.header("etag");
  REQUIRE(etag.size() > 2);

  CHECK(ask(streamer, "/1/1", {"If-None-Match: \"x\", W/" + etag}).status == 304);
  CHECK(ask(streamer, "/1/1", {"If-None-Match: \"x\""}).status == 200);
  CHECK(problem_with(ask(streamer, "/1/1", {"If-Range: " + etag, "Range: bytes=5-9"}), 206, file, 5, 10) ==
        "");
  CHECK(problem_with(ask(streamer, "/1/1", {"If-Range: \"x\"", "Range: bytes=5-9"}), 200, file, 0,
                     file.size) == "");

  // Another file of that name: what was known of it is not believed any more.
  const RecordingFile other = make_recording(site.root().path(), {1, 1}, 200'000, 77);
  REQUIRE(rename(other.path.c_str(), file.path.c_str()) == 0);
  const Reply changed = ask(streamer, "/1/1", {"If-Range: " + etag, "Range: bytes=5-9"});
  CHECK(problem_with(changed, 200, other, 0, other.size) == "");
  CHECK(problem_with(ask(streamer, "/1/1", {"Range: bytes=199000-299999"}), 206, other, 199'000, 200'000) ==
        "");
  const Reply beyond = ask(streamer, "/1/1", {"Range: bytes=250000-"});
  CHECK(beyond.status == 416);
  CHECK(beyond.header("content-range") == "bytes */200000");
}

TEST_CASE("a file that only has the inode number, size and mtime of the recording has another ETag") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  const Reply before = ask(streamer, "/1/1", {"Range: bytes=5-9"});
  CHECK(problem_with(before, 206, file, 5, 10) == "");
  // The daemon has let go of it: nothing keeps the inode.
  REQUIRE(wait_until([&] {
    return descriptors_beneath(daemon.pid(), file.path) == 0 &&
           mappings_beneath(daemon.pid(), file.path) == 0;
  }));
  const auto twin = replace_by_twin(file);
  if (!twin) return skip_or_fail("no inode number is given again here");
  const Reply after = ask(streamer, "/1/1", {"If-Range: " + before.header("etag"), "Range: bytes=5-9"});
  CHECK(problem_with(after, 200, *twin, 0, twin->size) == "");
}

TEST_CASE("an mp4 is video/mp4") {
  const Site site;
  write_file(site.directory() + "/0000000100000001",
             "\0\0\0\x18"
             "ftypisom"s);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  CHECK(ask(streamer, "/1/1", {}, "HEAD").header("content-type") == "video/mp4");
  CHECK(ask(streamer, "/1/1", {"Range: bytes=8-"}).header("content-type") == "video/mp4");
}

TEST_CASE("a growing recording is served as far as it goes") {
  const Site site;
  const RecordingFile whole = make_recording(site.root().path(), {1, 1}, 200'000, 5);
  const auto part = [&](std::uint64_t begin, std::uint64_t end) {
    const auto content = whole.bytes(begin, end);
    return std::string(reinterpret_cast<const char*>(content.data()), content.size());
  };
  const std::string path = site.directory() + "/0000000100000001";
  write_file(path, part(0, 100'000));
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  CHECK(ask(streamer, "/1/1", {"Range: bytes=90000-"}).header("content-range") == "bytes 90000-99999/100000");
  {
    const shm::UniqueFd fd(open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    const std::string rest = part(100'000, 200'000);
    REQUIRE(write(fd.get(), rest.data(), rest.size()) == static_cast<ssize_t>(rest.size()));
  }
  CHECK(problem_with(ask(streamer, "/1/1", {"Range: bytes=150000-"}), 206, whole, 150'000, 200'000) == "");
}

TEST_CASE("no cache keeps a recording that was written to a moment ago") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  const StreamerProcess patient({{"a", daemon.socket()}}, {"--settle-time", "100000"});
  const auto caching = [&](const std::vector<std::string>& headers, const std::string& method = "GET") {
    return ask(streamer, "/1/1", headers, method).header("cache-control");
  };
  const auto modify = [&](std::chrono::hours ago) {
    std::filesystem::last_write_time(file.path, std::filesystem::file_time_type::clock::now() - ago);
  };
  for (const bool is_future : {false, true}) {
    CAPTURE(is_future);
    if (is_future) modify(std::chrono::hours(-24));  // nobody can tell
    CHECK(caching({}) == "no-store");
    CHECK(caching({}, "HEAD") == "no-store");
    CHECK(caching({bytes(100'000, 200'000)}) == "no-store");
    CHECK(caching({"Range: bytes=300000-"}) == "no-store");
    const std::string etag = ask(streamer, "/1/1", {}, "HEAD").header("etag");
    CHECK(etag != "");
    CHECK(caching({"If-None-Match: " + etag}) == "no-store");
  }
  CHECK(ask(streamer, "/1/2").header("cache-control") == "");  // nginx would not keep the next host's answer
  modify(std::chrono::hours(2));
  CHECK(caching({}) == "");
  CHECK(caching({}, "HEAD") == "");
  CHECK(caching({bytes(100'000, 200'000)}) == "");
  CHECK(ask(patient, "/1/1").header("cache-control") == "no-store");
}

TEST_CASE("what cannot be answered is said clearly") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  const auto status_of = [&](const std::string& target, const std::string& method = "GET") {
    return ask(streamer, target, {}, method).status;
  };
  CHECK(status_of("/1/2") == 404);
  CHECK(status_of("/a/1/2") == 404);
  CHECK(status_of("/b/1/1") == 404);
  CHECK(status_of("/nothing") == 400);
  CHECK(status_of("/../../etc/passwd") == 400);
  for (const char* const method : {"POST", "PUT", "DELETE", "OPTIONS"}) {
    const Reply reply = ask(streamer, "/1/1", {}, method);
    CHECK(reply.status == 405);
    CHECK(reply.header("allow") == "GET, HEAD");
  }
  CHECK(ask(streamer, "/1/1", {"Range: bytes=1000-"}).status == 416);
  Wire without_host(streamer.port());
  without_host.send("GET /1/1 HTTP/1.1\r\n\r\n");
  CHECK(without_host.receive().status == 400);
  Wire old(streamer.port());
  old.send("GET /1/1 HTTP/1.0\r\n\r\n");
  CHECK(problem_with(old.receive(), 200, file, 0, file.size) == "");
  CHECK(old.is_closed_by_peer());
}

TEST_CASE("what HTTP allows a client to send is understood") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const RecordingFile empty = site.record({1, 2}, 0);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  Wire wire(streamer.port());
  for (const char* const request :
       {"\r\nGET /1/1 HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\nGET http://x/a/1/1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%61/1%2F1 HTTP/1.1\r\nHost: x\r\nIf-Match: *\r\n\r\n"}) {
    CAPTURE(request);
    wire.send(request);
    CHECK(problem_with(wire.receive(), 200, file, 0, file.size) == "");
  }
  CHECK(ask(streamer, "/1/1", {"If-Match: \"other\""}).status == 412);
  const std::string etag = ask(streamer, "/1/1").header("etag");
  CHECK(problem_with(ask(streamer, "/1/1", {"If-Match: \"other\", " + etag, bytes(100, 199)}), 206, file, 100,
                     200) == "");
  CHECK(problem_with(ask(streamer, "/1/2", {"Range: bytes=0-524287"}), 200, empty, 0, 0) == "");
}

TEST_CASE("no viewer learns of the paths of this machine") {
  const Site site;
  static_cast<void>(site.record({1, 1}, 1000));
  REQUIRE(mkdir((site.directory() + "/0000000100000002").c_str(), 0755) == 0);
  DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}}, {"--open-timeout", "1"});
  const auto check_answer = [&](const std::string& target, unsigned status) {
    const Reply reply = ask(streamer, target);
    CAPTURE(target, reply.body);
    CHECK(reply.status == status);
    CHECK(reply.body.find('/') == std::string::npos);
  };
  check_answer("/9/9", 404);
  check_answer("/a/9/9", 404);
  check_answer("/1/2", 404);
  daemon.kill();
  check_answer("/1/1", 503);
}

TEST_CASE("a connection is kept for the next request, also one that has come already") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100'000);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  Wire wire(streamer.port());
  for (int i = 0; i < 3; ++i) {
    wire.ask("/1/1", {bytes(10, 69'999)});
    CHECK(problem_with(wire.receive(), 206, file, 10, 70'000) == "");
  }
  wire.ask("/1/1");
  wire.ask("/1/2");
  wire.ask("/1/1", {"Connection: close"});
  CHECK(problem_with(wire.receive(), 200, file, 0, file.size) == "");
  CHECK(wire.receive().status == 404);
  CHECK(problem_with(wire.receive(), 200, file, 0, file.size) == "");
  CHECK(wire.is_closed_by_peer());
  CHECK(streamer.metric("nvr_streamer_responses_total{disk=\"a\",code=\"206\"}") == 3);
}

TEST_CASE("a recording is found on whichever disk it is") {
  const Site one;
  const Site two;
  const RecordingFile here = one.record({1, 1}, 100'000);
  const RecordingFile there = two.record({1, 2}, 200'000);
  const DaemonProcess daemon_one = one.start();
  const DaemonProcess daemon_two = two.start();
  const StreamerProcess streamer({{"one", daemon_one.socket()}, {"two", daemon_two.socket()}});
  CHECK(problem_with(ask(streamer, "/1/1"), 200, here, 0, here.size) == "");
  CHECK(problem_with(ask(streamer, "/1/2"), 200, there, 0, there.size) == "");
  CHECK(problem_with(ask(streamer, "/1/2", {bytes(70'000, 80'000)}), 206, there, 70'000, 80'001) == "");
  CHECK(ask(streamer, "/one/1/2").status == 404);
  CHECK(ask(streamer, "/1/3").status == 404);
  // Moved to the other disk.
  REQUIRE(rename(there.path.c_str(), (one.directory() + "/0000000100000002").c_str()) == 0);
  CHECK(problem_with(ask(streamer, "/1/2", {bytes(70'000, 80'000)}), 206, there, 70'000, 80'001) == "");
}

TEST_CASE(
    "beyond --streams a request waits, beyond --max-connections there is a 503, and nobody else is hurt") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 24 << 20);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}},
                                 {"--max-connections", "3", "--streams", "2", "--open-timeout", "600"});
  Wire first(streamer.port());
  Wire second(streamer.port());
  first.ask("/1/1");
  second.ask("/1/1");
  CHECK(first.receive_head().status == 200);
  CHECK(second.receive_head().status == 200);
  Wire third(streamer.port());
  third.ask("/1/1", {bytes(1'000'000, 1'000'999)});
  const Reply no_place = ask(streamer, "/1/1");
  CHECK(no_place.status == 503);
  CHECK(no_place.header("retry-after") == "2");
  CHECK_THAT(no_place.body, Catch::Contains("--max-connections"));
  const std::string body = first.take(file.size);
  REQUIRE(body.size() == file.size);
  CHECK(file.difference(0, std::as_bytes(std::span(body))) == "");
  CHECK(problem_with(third.receive(), 206, file, 1'000'000, 1'001'000) == "");
}

TEST_CASE("500 viewers of a healthy disk share its streams, and nobody is refused") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 600'000);  // more than a window
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}}, {"--open-timeout", "600"});
  std::vector<std::string> problems(scaled(500u, 200u));
  std::vector<std::thread> viewers;
  for (std::string& problem : problems) {
    viewers.emplace_back([&] {
      try {
        problem = problem_with(ask(streamer, "/1/1"), 200, file, 0, file.size);
      } catch (const std::exception& error) {
        problem = error.what();
      }
    });
  }
  for (std::thread& viewer : viewers) viewer.join();
  std::erase(problems, "");
  CHECK(problems == std::vector<std::string>());
}

TEST_CASE("a response that fits into a window keeps no stream from others, however slowly it is taken") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 24 << 20);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer(
      {{"a", daemon.socket()}},
      {"--streams", "1", "--slots", "64", "--open-timeout", "600", "--write-timeout", "600"});
  constexpr std::uint64_t kWindow = 4 << 20;  // more than the sockets' buffers hold
  std::vector<Wire> silent;
  for (std::uint64_t i = 0; i < 3; ++i) {
    silent.emplace_back(streamer.port());
    silent.back().ask("/1/1", {bytes(i * kWindow + 5, (i + 1) * kWindow + 4)});
  }
  for (Wire& wire : silent) CHECK(wire.receive_head().status == 206);
  CHECK(problem_with(ask(streamer, "/1/1", {bytes(0, 99'999)}), 206, file, 0, 100'000) == "");
  // They have it already, whatever becomes of the recording.
  REQUIRE(unlink(file.path.c_str()) == 0);
  CHECK(ask(streamer, "/1/1").status == 404);
  for (std::uint64_t i = 0; i < 3; ++i) {
    const std::string body = silent[i].take(kWindow);
    REQUIRE(body.size() == kWindow);
    CHECK(file.difference(i * kWindow + 5, std::as_bytes(std::span(body))) == "");
  }
}

TEST_CASE(
    "viewers who take nothing lose their streams to those who wait, and go on later, every byte exact") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 24 << 20);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}},
                                 {"--open-timeout", "600", "--write-timeout", "600"});
  std::vector<Wire> silent;
  for (unsigned i = 0; i < 100; ++i) {
    silent.emplace_back(streamer.port());
    silent.back().ask("/1/1");
  }
  for (Wire& wire : silent) CHECK(wire.receive_head().status == 200);
  for (int turn = 0; turn < 3; ++turn)
    CHECK(problem_with(ask(streamer, "/1/1"), 200, file, 0, file.size) == "");
  for (std::size_t i = 0; i < silent.size(); i += 33) {
    const std::string body = silent[i].take(file.size);
    REQUIRE(body.size() == file.size);
    CHECK(file.difference(0, std::as_bytes(std::span(body))) == "");
  }
}

TEST_CASE("viewers share one stream in turn, every byte exact") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 24 << 20);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer(
      {{"a", daemon.socket()}},
      {"--streams", "1", "--open-timeout", "600", "--write-timeout", "600", "--stall-timeout", "600"});
  std::vector<Wire> viewers;
  std::vector<std::string> bodies(3);
  for (std::size_t i = 0; i < bodies.size(); ++i) {
    viewers.emplace_back(streamer.port());
    viewers.back().ask("/1/1", {bytes(i, file.size - 1)});
  }
  for (Wire& viewer : viewers) CHECK(viewer.receive_head().status == 206);
  for (int turn = 0; turn < 3; ++turn) {
    for (std::size_t i = 0; i < bodies.size(); ++i)
      bodies[i] += viewers[i].take(std::min<std::size_t>(8 << 20, file.size - i - bodies[i].size()));
  }
  for (std::size_t i = 0; i < bodies.size(); ++i) {
    CHECK(bodies[i].size() == file.size - i);
    CHECK(file.difference(i, std::as_bytes(std::span(bodies[i]))) == "");
  }
}

TEST_CASE("a recording that is another file when its viewer's turn comes again ends there") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 24 << 20);
  const RecordingFile small = site.record({1, 2}, 1000);
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer(
      {{"a", daemon.socket()}},
      {"--streams", "1", "--open-timeout", "600", "--write-timeout", "600", "--stall-timeout", "600"});
  Wire silent(streamer.port());
  silent.ask("/1/1");
  CHECK(silent.receive_head().status == 200);
  REQUIRE(wait_until([&] {
    const bool is_served = problem_with(ask(streamer, "/1/2"), 200, small, 0, small.size).empty();
    return is_served && streamer.metric("nvr_streamer_disk_streams_in_use{disk=\"a\"}") == 0;
  }));
  const RecordingFile other = make_recording(site.root().path(), {1, 1}, 24 << 20, 77);
  REQUIRE(rename(other.path.c_str(), file.path.c_str()) == 0);
  const std::string body = silent.take(file.size);
  CHECK(body.size() < file.size);
  CHECK(file.difference(0, std::as_bytes(std::span(body))) == "");
  CHECK(streamer.metric("nvr_streamer_connections_cut_total{reason=\"disk_error\"}") == 1);
  CHECK(problem_with(ask(streamer, "/1/1"), 200, other, 0, other.size) == "");
}

TEST_CASE("SIGTERM lets the response that has begun end, and takes no other") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 24 << 20);
  const DaemonProcess daemon = site.start();
  StreamerProcess streamer({{"a", daemon.socket()}}, {"--drain-timeout", "60"});
  Wire idle(streamer.port());
  Wire busy(streamer.port());
  idle.ask("/healthz");
  CHECK(idle.receive().status == 200);
  busy.ask("/1/1");
  CHECK(busy.receive_head().status == 200);
  streamer.signal(SIGTERM);
  CHECK(idle.is_closed_by_peer());
  CHECK_THROWS_AS(Wire(streamer.port()), TestFailure);
  const std::string body = busy.take(file.size);
  REQUIRE(body.size() == file.size);
  CHECK(file.difference(0, std::as_bytes(std::span(body))) == "");
  CHECK(busy.is_closed_by_peer());
  const auto exit = streamer.wait();
  REQUIRE(exit.has_value());
  CHECK(to_string(*exit) == "exit 0");
}

TEST_CASE("a streamer that cannot work says why in one line") {
  const auto problem = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), NVR_TEST_STREAMER);
    const ProgramResult result = run_program(arguments);
    return to_string(result.exit) + ": " + result.errors;
  };
  const std::string disk = "a=/nowhere/socket";
  CHECK_THAT(problem({}), Catch::StartsWith("exit 2") && Catch::Contains("--disk"));
  CHECK_THAT(problem({"--disk", "nowhere"}), Catch::StartsWith("exit 2") && Catch::Contains("NAME=SOCKET"));
  CHECK_THAT(problem({"--disk", "1=x"}), Catch::StartsWith("exit 2"));
  CHECK_THAT(problem({"--disk", disk, "--disk", disk}),
             Catch::StartsWith("exit 2") && Catch::Contains("two disks"));
  CHECK_THAT(problem({"--disk", disk, "--listen", "8080"}),
             Catch::StartsWith("exit 2") && Catch::Contains("--listen"));
  CHECK_THAT(problem({"--disk", disk, "--listen", "somewhere:80"}), Catch::StartsWith("exit 2"));
  CHECK_THAT(problem({"--disk", disk, "--slots", "3"}),
             Catch::StartsWith("exit 2") && Catch::Contains("power of two"));
  const Site site;
  const DaemonProcess daemon = site.start();
  const StreamerProcess streamer({{"a", daemon.socket()}});
  CHECK_THAT(problem({"--disk", disk, "--listen", "127.0.0.1:" + std::to_string(streamer.port())}),
             Catch::StartsWith("exit 2") && Catch::Contains("cannot listen on 127.0.0.1:"));
}

}  // namespace
}  // namespace nvr::test
