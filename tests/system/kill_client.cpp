// Clients that are killed at any instruction: nothing of them stays in the daemon.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

#include "tests/support/client_process.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

// Streams without end, in every way that a client can: ranges, seeks, held chunks, missing recordings,
// cancels.
[[noreturn]] void stream_for_ever(const std::string& socket, const RecordingFile& file, std::uint64_t seed) {
  Random random(seed);
  for (;;) {
    const auto streams = static_cast<std::uint32_t>(pick(random, 1, 4));
    const auto slots = 1u << pick(random, 1, 4);
    Client client = connect_to(socket, {.streams = streams, .slots_per_stream = slots});
    std::vector<Chunk> held;
    for (int turn = 0; turn < 20; ++turn) {
      std::vector<Stream> open;
      for (std::uint32_t i = 0; i < streams; ++i) {
        const std::uint64_t begin = pick(random, 0, file.size - 1);
        const RecordingId id = pick(random, 0, 9) == 0 ? RecordingId{9, 9} : file.id;
        auto stream = client.open({.recording = id, .begin = begin});
        if (stream) open.push_back(std::move(*stream));
      }
      for (Stream& stream : open) {
        for (std::uint64_t chunks = pick(random, 0, 10); chunks > 0; --chunks) {
          auto next = stream.next();
          if (!next || !*next) break;
          Reporter::require(file.difference((*next)->offset(), (*next)->bytes()).empty(), "a wrong byte");
          if (held.size() < 2 && pick(random, 0, 3) == 0) held.push_back(std::move(**next));
        }
        if (pick(random, 0, 3) == 0) stream.cancel();
      }
      if (pick(random, 0, 1) == 0) held.clear();
    }
  }
}

TEST_CASE("clients killed at random moments leave nothing behind in the daemon") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 8'000'001);
  DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  const auto start_client = [&] {
    const std::uint64_t seed = test_random()();
    return ClientProcess::start([&, seed](const Reporter&) { stream_for_ever(socket, file, seed); });
  };
  {
    Client warm_up = connect_to(daemon);
    CHECK(problem_reading(warm_up, file) == "");
  }
  REQUIRE(daemon.wait_for_total("shared_bytes", 0));
  const Baseline baseline(daemon.pid());

  constexpr int kKills = scaled(1000, 240);
  constexpr int kAtATime = 4;
  for (int kills = 0; kills < kKills; kills += kAtATime) {
    std::vector<ClientProcess> clients;
    for (int i = 0; i < kAtATime; ++i) clients.push_back(start_client());
    for (ClientProcess& client : clients) {
      // From the middle of the handshake to the middle of everything.
      std::this_thread::sleep_for(std::chrono::microseconds(pick(test_random(), 0, scaled(8'000, 60'000))));
      client.signal(SIGKILL);
      CHECK(client.failure().starts_with("signal 9"));
    }
    if (kills % 200 == 0) REQUIRE(daemon.is_running());
  }

  for (const char* const total :
       {"connections_now", "streams_open", "shared_bytes", "held_bytes", "quarantined_bytes"}) {
    CAPTURE(total);
    CHECK(daemon.wait_for_total(total, 0));
  }
  CHECK(daemon.total("violations") == 0);
  CHECK(daemon.total("chunks") > 1000);  // they did stream
  CHECK(baseline.difference_after_waiting() == "");
  CHECK(mappings_beneath(daemon.pid(), site.directory()) == 0);
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("a client killed with held chunks and full windows gives everything back") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  const Baseline baseline(daemon.pid());
  for (int i = 0; i < 5; ++i) {
    ClientProcess client = ClientProcess::start([&](const Reporter& reporter) {
      Client connection = connect_to(socket, {.streams = 4, .slots_per_stream = 8});
      std::vector<Stream> streams;
      std::vector<Chunk> held;
      for (int s = 0; s < 4; ++s) {
        streams.push_back(open_stream(connection, file));
        for (int c = 0; c < 2 * s; ++c) {
          auto chunk = streams.back().next();
          Reporter::require(code_of(chunk) == Code::kOk, "no chunk");
          held.push_back(std::move(**chunk));
        }
      }
      reporter.line("full");
      pause();
    });
    REQUIRE(client.next_line() == "full");
    CHECK(daemon.total("connections_now") == 1);
    client.signal(SIGKILL);
    CHECK(client.failure().starts_with("signal 9"));
    CHECK(daemon.wait_for_total("connections_now", 0));
  }
  CHECK(daemon.wait_for_total("shared_bytes", 0));
  CHECK(baseline.difference_after_waiting() == "");
}

}  // namespace
}  // namespace nvr::test
