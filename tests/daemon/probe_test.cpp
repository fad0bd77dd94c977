// Probes of a disk on which something is stuck, over an engine that does nothing by itself.
#include <errno.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <vector>

#include "daemon/disk_probe.h"

namespace nvr::daemon {
namespace {

class IdleEngine final : public Engine {
 public:
  [[nodiscard]] std::string_view name() const override { return "idle"; }
  [[nodiscard]] std::uint32_t depth() const override { return 1; }
  [[nodiscard]] std::uint32_t read_slots() const override { return 1; }
  void submit(Operation& operation) override { submitted.push_back(&operation); }
  std::size_t reap(std::span<Completion>) override { return 0; }
  void close(std::unique_ptr<SampleFile>) override { ++closed; }
  [[nodiscard]] int wait(int) override { return 0; }

  std::vector<Operation*> submitted;
  int closed = 0;
};

struct Bench {
  IdleEngine engine;
  OperationPool pool{2};
  DiskStatistics statistics;
  DiskProbe probe{engine, pool, statistics};

  // Starts a probe; null when there is none to be started.
  Operation* start(std::uint64_t now_ns) {
    const std::size_t before = engine.submitted.size();
    probe.start_if_due(now_ns);
    return engine.submitted.size() == before ? nullptr : engine.submitted.back();
  }
  // Its open has come, of a file of this size.
  void open(Operation& operation, std::uint64_t size) {
    operation.opened = std::make_unique<SampleFile>();
    operation.opened->size = size;
    probe.on_completion(operation, 0, 0);
  }
};

constexpr std::uint64_t kStart = 100 * shm::kSecond;

TEST_CASE("disk probe: a small read past the page cache, one at a time and one a second") {
  Bench bench;
  CHECK(bench.start(kStart) == nullptr);  // there is nothing to ask for
  bench.probe.remember({1, 2});
  Operation* const first = bench.start(kStart);
  REQUIRE(first != nullptr);
  CHECK(bench.probe.owns(*first));
  CHECK(first->kind == Operation::Kind::kOpen);
  CHECK(first->cache == CachePolicy::kDirect);
  CHECK(bench.start(kStart + 10 * shm::kSecond) == nullptr);
  bench.open(*first, 10'000);
  REQUIRE(bench.engine.submitted.size() == 2);
  CHECK(first->kind == Operation::Kind::kRead);
  CHECK(first->offset == 0);
  CHECK(first->length == 4096);
  CHECK(first->slot_count == 1);
  CHECK(reinterpret_cast<std::uintptr_t>(first->targets[0]) % 4096 == 0);
  CHECK(first->file->is_registered);  // it has no window
  CHECK(bench.statistics.answered_ns.value() == 0);
  bench.probe.on_completion(*first, 4096, kStart + 11 * shm::kSecond);
  CHECK(bench.statistics.answered_ns.value() == kStart + 11 * shm::kSecond);
  CHECK_FALSE(bench.probe.owns(*first));
  CHECK(bench.engine.closed == 1);
  CHECK(bench.pool.in_use() == 0);

  Operation* const second = bench.start(kStart + 11 * shm::kSecond);
  REQUIRE(second != nullptr);
  bench.open(*second, 100);
  CHECK(second->length == 100);
  bench.probe.on_completion(*second, 100, kStart + 11 * shm::kSecond);
  CHECK(bench.start(kStart + 12 * shm::kSecond - 1) == nullptr);
  CHECK(bench.start(kStart + 12 * shm::kSecond) != nullptr);
}

TEST_CASE("disk probe: one that fails says nothing of the disk, and leaves nothing behind") {
  Bench bench;
  bench.probe.remember({1, 2});
  Operation* const unreadable = bench.start(kStart);
  REQUIRE(unreadable != nullptr);
  bench.open(*unreadable, 10'000);
  bench.probe.on_completion(*unreadable, GENERATE(0, -EIO), kStart);  // cut short meanwhile, or a bad sector
  CHECK(bench.engine.closed == 1);
  CHECK(bench.pool.in_use() == 0);

  Operation* const again = bench.start(kStart + shm::kSecond);
  REQUIRE(again != nullptr);
  const bool is_missing = GENERATE(true, false);
  if (is_missing)
    bench.probe.on_completion(*again, -ENOENT, kStart);
  else
    bench.open(*again, 0);
  CHECK(bench.engine.closed == (is_missing ? 1 : 2));
  CHECK(bench.pool.in_use() == 0);
  CHECK(bench.start(kStart + 100 * shm::kSecond) == nullptr);  // until another recording has been read from
  bench.probe.remember({1, 3});
  CHECK(bench.start(kStart + 100 * shm::kSecond) != nullptr);
  CHECK(bench.statistics.answered_ns.value() == 0);
}

TEST_CASE("disk probe: there is none while every operation is in use") {
  Bench bench;
  bench.probe.remember({1, 2});
  Operation& one = bench.pool.take();
  static_cast<void>(bench.pool.take());
  CHECK(bench.start(kStart) == nullptr);
  bench.pool.give_back(one);
  CHECK(bench.start(kStart) != nullptr);
}

}  // namespace
}  // namespace nvr::daemon
