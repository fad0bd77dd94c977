// The heartbeat: it moves while a stream is open, whatever was opened and closed before. A client whose
// daemon shows none takes it for dead.
#include <catch2/catch.hpp>
#include <fstream>
#include <string>
#include <thread>

#include "shm/protocol.h"
#include "tests/support/streams.h"
#include "tests/support/wait.h"

namespace nvr::test {
namespace {

// R of this process's one connection, where the library has mapped it.
const shm::ReadHeader* find_read_header() {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("memfd:nvr-R") == std::string::npos) continue;
    return reinterpret_cast<const shm::ReadHeader*>(std::stoull(line, nullptr, 16));
  }
  throw std::runtime_error("no R is mapped");
}

TEST_CASE("the heartbeat moves while a stream is open, also after many that were too short to be seen",
          "[once]") {
  const Site site;
  const RecordingFile brief = site.record({1, 1}, kChunkBytes);
  const RecordingFile lasting = site.record({1, 2}, 100 * kChunkBytes);  // more than a window: stays open
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
  const shm::ReadHeader* const header = find_read_header();
  REQUIRE(header->magic == shm::kMagic);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 50; ++i) {
      Stream stream = open_stream(client, brief, 0, kChunkBytes);
      for (auto& chunk : stream) REQUIRE(chunk.has_value());
    }
    const Stream open = open_stream(client, lasting);
    const std::uint64_t before = header->heartbeat.load();
    REQUIRE(wait_until([&] { return header->heartbeat.load() - before >= 3; }));
  }
}

}  // namespace
}  // namespace nvr::test
