// What comes from a network: garbage, halves, trickles, and viewers who take nothing. The streamer outlives
// them, bounded, and serves the others meanwhile.
#include <catch2/catch.hpp>

#include "tests/streamer/streamer_process.h"
#include "tests/support/proc.h"

namespace nvr::test {
namespace {

struct Scene {
  explicit Scene(std::vector<std::string> arguments = {})
      : file(site.record({1, 1}, 32 << 20)),
        daemon(site.start()),
        streamer({{"a", daemon.socket()}}, std::move(arguments)) {}

  // It serves, and nothing of what happened is left.
  [[nodiscard]] std::string problem() {
    if (!streamer.is_running()) return "it has ended: " + streamer.log();
    const Reply reply = ask(streamer, "/1/1", {"Range: bytes=1000000-1999999"});
    const std::string wrong = problem_with(reply, 206, file, 1'000'000, 2'000'000);
    if (!wrong.empty()) return wrong;
    if (!wait_until([&] { return streamer.metric("nvr_streamer_connections") == 1; }))
      return "connections are left";
    return "";
  }

  Site site;
  RecordingFile file;
  DaemonProcess daemon;
  StreamerProcess streamer;
};

TEST_CASE("requests that are none get a 4xx, or the end of the connection") {
  Scene scene;
  using namespace std::string_literals;
  const std::vector<std::pair<std::string, unsigned>> requests = {
      {"hello\r\n\r\n", 400},
      {"GET\r\n\r\n", 400},
      {"GET /1/1\r\n\r\n", 400},
      {"GET /1/1 HTTP/9.9\r\nHost: x\r\n\r\n", 400},
      {"GET /1/1 HTTP/1.1\r\nHost x\r\n\r\n", 400},
      {"GET /1/1 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
      {"GET /1/\0001 HTTP/1.1\r\nHost: x\r\n\r\n"s, 400},
      {"GET /1/1 HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400},
      {"GET /1/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde", 400},
      {"GET /1/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", 400},
      {"GET http://x/1/1%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {std::string(20'000, '\n'), 431},
      {"GET /" + std::string(7000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /1/1 HTTP/1.1\r\nHost: x\r\nX: " + std::string(20'000, 'a') + "\r\n\r\n", 431},
      {"GET /1/1 HTTP/1.1\r\nHost: x\r\n" +
           [] {
             std::string many;
             for (int i = 0; i < 1000; ++i) many += "A" + std::to_string(i) + ": b\r\n";
             return many;
           }() +
           "\r\n",
       431},
      {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"s, 400},
  };
  for (const auto& [request, status] : requests) {
    CAPTURE(request.substr(0, 60));
    Wire wire(scene.streamer.port());
    wire.send(request);
    CHECK(wire.receive().status == status);
  }
  CHECK(scene.problem() == "");
}

TEST_CASE("random bytes and mangled requests leave nothing behind") {
  Scene scene;
  const std::string good = "GET /a/1/1 HTTP/1.1\r\nHost: x\r\nRange: bytes=0-99\r\nIf-Range: \"x\"\r\n\r\n";
  Random& random = test_random();
  for (int turn = 0; turn < scaled(300, 100); ++turn) {
    std::string bytes = turn % 3 == 0 ? std::string(pick(random, 1, 3000), '\0') : good + good;
    const std::uint64_t changes = turn % 3 == 0 ? bytes.size() : pick(random, 1, 8);
    for (std::uint64_t i = 0; i < changes; ++i)
      bytes[pick(random, 0, bytes.size() - 1)] = static_cast<char>(pick(random, 0, 255));
    Wire wire(scene.streamer.port());
    wire.send(bytes.substr(0, pick(random, 1, bytes.size())));
    if (turn % 2 == 0) static_cast<void>(wire.send("\r\n\r\n"));
  }
  CHECK(scene.problem() == "");
}

TEST_CASE("halves and trickles end at their deadlines, and hold nobody up") {
  Scene scene({"--header-timeout", "2", "--idle-timeout", "4"});
  Wire silent(scene.streamer.port());
  Wire half(scene.streamer.port());
  half.send("GET /1/1 HTTP/1.1\r\nHos");
  Wire trickle(scene.streamer.port());
  Wire second_half(scene.streamer.port());  // behind a whole one
  second_half.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /1/1 HT");
  CHECK(second_half.receive().status == 200);
  const std::string endless = "GET /1/1 HTTP/1.1\r\nHost: x\r\nX: " + std::string(5000, 'a');
  bool was_cut = false;
  for (std::size_t i = 0; i < endless.size() && !was_cut; ++i) {
    was_cut = !trickle.send(endless.substr(i, 1)) || trickle.has_news();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(was_cut);
  CHECK(half.is_closed_by_peer());
  CHECK(silent.is_closed_by_peer());
  CHECK(second_half.is_closed_by_peer());
  CHECK(scene.streamer.metric("nvr_streamer_connections_cut_total{reason=\"header\"}") == 3);
  CHECK(scene.problem() == "");
}

TEST_CASE("a viewer who takes nothing is closed, and costs a window of one stream meanwhile") {
  Scene scene({"--write-timeout", "5"});  // who reads may be held up for a while, too
  std::vector<Wire> greedy;
  const int viewers = scaled(20, 5);
  for (int i = 0; i < viewers; ++i) {
    greedy.emplace_back(scene.streamer.port());
    greedy.back().ask("/1/1");
  }
  CHECK(problem_with(ask(scene.streamer, "/1/1"), 200, scene.file, 0, scene.file.size) == "");
  CHECK(wait_until([&] {
    return scene.streamer.metric("nvr_streamer_connections_cut_total{reason=\"write\"}") == viewers;
  }));
  for (Wire& wire : greedy) CHECK(wire.take(scene.file.size).size() < scene.file.size);
  CHECK(scene.problem() == "");
}

TEST_CASE("hundreds of connections that go in the middle leave no descriptor and no thread") {
  Scene scene;
  REQUIRE(scene.problem() == "");
  const auto descriptors = descriptors_of(scene.streamer.pid()).size();
  const auto threads = threads_of(scene.streamer.pid()).size();  // one, and what a sanitizer has
  CHECK(threads <= scaled(1u, 2u));
  for (int turn = 0; turn < scaled(300, 100); ++turn) {
    Wire wire(scene.streamer.port());
    wire.ask("/1/1");
    if (turn % 2 == 0) CHECK(wire.receive_head().status == 200);
    if (turn % 4 == 0) static_cast<void>(wire.take(100'000));
  }
  CHECK(wait_until([&] { return descriptors_of(scene.streamer.pid()).size() <= descriptors; }));
  CHECK(threads_of(scene.streamer.pid()).size() == threads);
  CHECK(scene.problem() == "");
  CHECK(scene.daemon.wait_for_total("streams_open", 0));
}

}  // namespace
}  // namespace nvr::test
