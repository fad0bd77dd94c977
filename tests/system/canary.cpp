// A client dies with a read on the disk, and another takes its place at once: not one byte of that read may
// appear in the memory of the new one, though it has the same size and, were the old one's mapping gone too
// early, the same addresses in the daemon.
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "shm/protocol.h"
#include "tests/support/client_process.h"
#include "tests/support/proc.h"
#include "tests/support/slow_disk.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr int kKills = scaled(1000, 100);
constexpr ConnectOptions kOptions = {.streams = 2, .slots_per_stream = 8};
constexpr std::uint64_t kHeldBytes =
    2 * kChunkBytes - 1000;  // two chunks; the end of the second slot is bare

constexpr std::chrono::seconds kNever{scaled(90, 200)};  // nothing came for so long: nothing ever will

using Bytes = std::span<const std::byte>;

// R's slots of this process's only connection, all of them: those not lent to it too.
Bytes slots_of_the_connection() {
  constexpr shm::Geometry kGeometry{.streams = kOptions.streams, .slots = kOptions.slots_per_stream};
  for (const MapEntry& map : mappings_of(getpid())) {
    if (map.name.find("nvr-R") == std::string::npos) continue;
    const auto* const base = reinterpret_cast<const std::byte*>(map.begin);
    return {base + kGeometry.slot_offset(0, 0), base + kGeometry.read_bytes()};
  }
  throw TestFailure("the connection's memory is not mapped");
}

std::size_t windows_mapped_by(pid_t pid) {
  std::size_t count = 0;
  for (const MapEntry& map : mappings_of(pid)) count += map.name.find("nvr-R") != std::string::npos ? 1 : 0;
  return count;
}

// The canary is the zero of fresh memory: but for the chunks that are held, every byte must be that. The
// content of recordings has no eight zeroes in a row.
std::string problem_in(Bytes slots, const std::vector<Chunk>& held, const RecordingFile& file) {
  std::size_t bare_from = 0;
  const auto check_bare = [&](std::size_t until) -> std::string {
    const Bytes bare = slots.subspan(bare_from, until - bare_from);
    const auto stray = std::ranges::find_if(bare, [](std::byte byte) { return byte != std::byte{0}; });
    if (stray == bare.end()) return "";
    return "a stray byte at " + std::to_string(bare_from + static_cast<std::size_t>(stray - bare.begin()));
  };
  for (const Chunk& chunk : held) {  // they lie in the order of their slots
    const auto at = static_cast<std::size_t>(chunk.bytes().data() - slots.data());
    if (at < bare_from || at + chunk.bytes().size() > slots.size()) return "slots out of order";
    if (auto problem = check_bare(at); !problem.empty()) return problem;
    if (auto problem = file.difference(chunk.offset(), chunk.bytes()); !problem.empty()) return problem;
    bare_from = at + chunk.bytes().size();
  }
  return check_bare(slots.size());
}

// The moment when the disk gives back what it has held all the time.
enum class Moment : std::uint64_t { kKilled, kConnected, kHoldingChunks };

class Turn {
 public:
  Turn(SlowDisk& disk, const DaemonProcess& daemon, const RecordingFile& old, const RecordingFile& own)
      : disk_(disk), daemon_(daemon), old_(old), own_(own) {}

  // Empty if all is well.
  std::string problem(Moment release) {
    kill_one_with_a_stuck_read();
    if (release == Moment::kKilled) disk_.release();
    Client client = connect_to(daemon_, kOptions);
    if (release == Moment::kConnected) disk_.release();
    Stream stream = open_stream(client, own_, 0, kHeldBytes);
    std::vector<Chunk> held;
    while (auto chunk = stream.next(in(kNever))) {
      if (!*chunk) return to_string(chunk->error());
      held.push_back(std::move(**chunk));
    }
    const Bytes slots = slots_of_the_connection();
    if (auto problem = problem_in(slots, held, own_); !problem.empty()) return "before: " + problem;
    const std::size_t windows = windows_mapped_by(daemon_.pid());
    if (release == Moment::kHoldingChunks) disk_.release();
    if (!wait_until([&] { return daemon_.status().at("operations_in_flight") == 0; }))
      return "the old read does not end";
    if (auto problem = problem_in(slots, held, own_); !problem.empty()) return "after: " + problem;
    if (release == Moment::kHoldingChunks && windows != 2)
      return "with the old read on the disk, windows mapped: " + std::to_string(windows);
    held.clear();
    return problem_reading(client, own_);
  }

 private:
  void kill_one_with_a_stuck_read() {
    disk_.stall_reads(old_.id);
    ClientProcess client = ClientProcess::start([&](const Reporter& reporter) {
      Client connection = connect_to(daemon_, kOptions);
      const Stream stream = open_stream(connection, old_);
      reporter.line("open");
      pause();
    });
    REQUIRE(client.next_line() == "open");
    disk_.wait_until_stuck(old_.id);
    client.signal(SIGKILL);
    client.reap();
  }

  SlowDisk& disk_;
  const DaemonProcess& daemon_;
  const RecordingFile& old_;
  const RecordingFile& own_;
};

TEST_CASE("a read of a killed client leaves no byte in the memory of the next one") {
  if (geteuid() != 0) return skip_or_fail("looking at the daemon's memory maps needs root");
  if (const auto reason = SlowDisk::missing()) return skip_or_fail(*reason);
  const Site site;
  SlowDisk disk(site.directory());
  std::vector<RecordingFile> old;
  for (std::uint32_t i = 0; i < 8; ++i)
    old.push_back(make_recording(disk.backing(), {1, i}, 20 * kChunkBytes, test_seed() + i));
  const RecordingFile own = make_recording(disk.backing(), {2, 1}, 10 * kChunkBytes + 1, test_seed() + 100);
  DaemonProcess daemon = site.start();
  const ReleaseAtEnd release_at_end(disk);
  // With mmap the new client's read waits for the old one's: the disk has to answer before it.
  const auto last = engine_under_test() == "mmap" ? Moment::kConnected : Moment::kHoldingChunks;
  for (int i = 0; i < kKills; ++i) {
    const auto release = static_cast<Moment>(pick(test_random(), 0, static_cast<std::uint64_t>(last)));
    CAPTURE(i, static_cast<int>(release));
    REQUIRE(Turn(disk, daemon, old[static_cast<std::size_t>(i) % old.size()], own).problem(release) == "");
  }
  CHECK(daemon.is_running());
  for (const char* const total : {"shared_bytes", "held_bytes", "quarantined_bytes", "violations"}) {
    CAPTURE(total);
    CHECK(daemon.wait_for_total(total, 0));
  }
}

}  // namespace
}  // namespace nvr::test
