// A stuck range of a real block device, and what the other streams of that disk get meanwhile.
#include <algorithm>
#include <catch2/catch.hpp>

#include "tests/support/failing_disk.h"

namespace nvr::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Bytes per second of reading the recordings from `first` on, all at a time.
double rate_of(Client& client, const FailingDisk& lab, std::size_t first, std::size_t count) {
  std::vector<Stream> streams;
  std::vector<ChunkChecker> checkers;
  for (std::size_t i = first; i < first + count; ++i) {
    streams.push_back(open_stream(client, lab.files[i]));
    checkers.emplace_back(lab.files[i], 0, lab.files[i].size);
  }
  const auto before = Clock::now();
  for (std::size_t open = count; open > 0;) {
    open = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto next = streams[i].next(in(seconds(60)));
      if (!next) continue;
      REQUIRE(next->has_value());
      REQUIRE(checkers[i].accept(**next));
      ++open;
    }
  }
  const std::chrono::duration<double> took = Clock::now() - before;
  for (const ChunkChecker& checker : checkers) REQUIRE(checker.is_complete());
  return static_cast<double>(count * lab.files[first].size) / took.count();
}

TEST_CASE("a stuck range of a block device leaves the other streams their rate, where the engine goes on",
          "[rates]") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  constexpr std::size_t kStreams = 8;
  constexpr int kRounds = 3;
  FailingDisk lab(1 + 2 * kRounds * kStreams, 2 * kMiB);
  const DaemonProcess& daemon = lab.start({"--device-kind", "solid"});
  Client client = connect_to(daemon, {.streams = kStreams + 1, .slots_per_stream = 8});
  lab.disk.order("delay 20ms");  // so that it is the disk that limits the rate
  std::vector<double> ratios;
  for (std::size_t round = 0; round < kRounds; ++round) {
    const double without = rate_of(client, lab, 1 + 2 * round * kStreams, kStreams);
    lab.disk.order("stall file samples/" + file_name_of(lab.files[0].id));
    Stream stuck = open_stream(client, lab.files[0]);
    REQUIRE(wait_until([&] { return client.disk_status().stuck_for > milliseconds(700); }));
    if (engine_under_test() == "mmap") {  // one thread: all wait, and hear of it in time
      Stream other = open_stream(client, lab.files[1 + (2 * round + 1) * kStreams]);
      const auto late = other.next(in(milliseconds(300)));
      CHECK(code_of(late) == Code::kDeadlineExceeded);
      ratios.push_back(1);
    } else {
      ratios.push_back(rate_of(client, lab, 1 + (2 * round + 1) * kStreams, kStreams) / without);
    }
    lab.disk.order("resume");
    CHECK(problem_reading(stuck, lab.files[0], 0, lab.files[0].size) == "");
    lab.disk.cool();
  }
  CAPTURE(ratios);
  // What the stuck range costs, it costs in every round; what the machine does meanwhile, in some.
  CHECK(std::ranges::max(ratios) >= 0.9);
}

}  // namespace
}  // namespace nvr::test
