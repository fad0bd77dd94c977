// The stall state: its readers get one whole state, or none.
#include "shm/disk_state.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

namespace nvr::shm {
namespace {

OldestOperation operation(std::uint64_t value) {
  return {.operation = DiskOperation::kRead,
          .since_ns = value,
          .recording = value,
          .offset = value,
          .stuck_ns = value};
}

TEST_CASE("disk state: what was written is read, each time") {
  DiskState shared = {};
  for (std::uint64_t value = 1; value <= 3; ++value) {
    write_disk_state(shared, operation(value), value == 2);
    CHECK(read_disk_state(shared) == operation(value));
    CHECK((shared.refuses_opens.load() != 0) == (value == 2));
  }
}

TEST_CASE("disk state: the daemon's count is believed, and a clock only where there is none") {
  OldestOperation stuck{.operation = DiskOperation::kRead, .since_ns = 100, .stuck_ns = 7};
  CHECK(stuck_for_ns(stuck, 200) == 7);
  CHECK(stuck_for_ns(stuck, 50) == 7);  // the reader's clock is behind
  stuck.stuck_ns = UINT64_MAX;
  CHECK(stuck_for_ns(stuck, 200) == INT64_MAX);  // fits every duration
  stuck.stuck_ns = 0;
  CHECK(stuck_for_ns(stuck, 200) == 100);
  CHECK(stuck_for_ns(stuck, 50) == 0);  // written after the reader looked at the clock
}

TEST_CASE("disk state: of a writer that died in the middle nothing is believed") {
  DiskState shared = {};
  write_disk_state(shared, operation(1), false);
  shared.sequence.fetch_add(1);
  shared.recording.store(2);
  CHECK_FALSE(read_disk_state(shared));
}

TEST_CASE("disk state: no reader sees parts of two states") {
  DiskState shared = {};
  write_disk_state(shared, operation(1), false);
  std::atomic<bool> is_over = false;
  std::thread writer([&] {
    for (std::uint64_t value = 2; !is_over; ++value) write_disk_state(shared, operation(value), false);
  });
  // Until many states have been seen. One processor shows a new one only now and then: a few of them, there.
  std::uint64_t torn = 0;
  std::uint64_t last = 0;
  for (int changes = 0, looks = 0; changes < 3 || (changes < 20'000 && looks < 50'000'000); ++looks) {
    const auto seen = read_disk_state(shared);
    if (!seen) continue;
    torn += *seen == operation(seen->since_ns) ? 0 : 1;
    changes += seen->since_ns != last ? 1 : 0;
    last = seen->since_ns;
  }
  is_over = true;
  writer.join();
  CHECK(torn == 0);
}

}  // namespace
}  // namespace nvr::shm
