// The whole modelled disk in time that the test makes up: its queue, its one head, and its faults.
#include "tools/slowdisk/disk.h"

#include <errno.h>

#include <catch2/catch.hpp>
#include <vector>

namespace nvr::slowdisk {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kCapacity = std::uint64_t{1} << 40;
constexpr std::uint64_t kPiece = 65'536;

DiskOptions options() {
  DiskOptions result;
  result.mechanics.capacity_bytes = kCapacity;
  result.short_granule_bytes = 4096;
  result.knows_files = true;
  return result;
}
Request read_of(std::uint64_t offset, Time arrived, std::string file = {}) {
  Request request;
  request.id = offset;
  request.offset = request.position = offset;
  request.length = kPiece;
  request.arrived = arrived;
  request.file = std::move(file);
  return request;
}
Request write_of(std::uint64_t offset, Time arrived) {
  Request request = read_of(offset, arrived);
  request.operation = Operation::kWrite;
  return request;
}
std::string follow(Disk& disk, const std::string& line, Time now) {
  const auto said = disk.follow(parse_order(line).value(), now);
  INFO(line);
  REQUIRE(said.has_value());
  return *said;
}
// Serves until nothing can be served; the clock jumps along. The last instant is left in `now`.
std::vector<Service> drain(Disk& disk, Time& now) {
  std::vector<Service> services;
  while (const Service* const service = disk.begin(now)) {
    now = std::max(now, service->finishes);
    services.push_back(disk.finish());
  }
  return services;
}
Verdict verdict_of(Disk& disk, const Request& request) {
  disk.submit(request);
  Time now = request.arrived;
  const auto services = drain(disk, now);
  REQUIRE(services.size() == 1);
  return services[0].verdict;
}

TEST_CASE("one request after the other, without a gap, however late the driver is") {
  Disk disk(options());
  for (std::uint64_t i = 0; i < 10; ++i) disk.submit(read_of(i << 30, 1s));
  Time due = 1s;
  Time now = 1s;
  while (const Service* const service = disk.begin(now)) {
    CHECK(service->begun == due);
    due = service->finishes;
    now = due + 300us;
    static_cast<void>(disk.finish());
  }
  CHECK(due > 1s + 9 * 1ms);
}

TEST_CASE("a stall holds everything until it is lifted, and nothing is caught up on") {
  Disk disk(options());
  follow(disk, "stall", 0ms);
  disk.submit(read_of(kCapacity / 4, 1s));
  disk.submit(read_of(kCapacity / 2, 1s));
  CHECK(disk.begin(100s) == nullptr);
  CHECK(follow(disk, "status", 100s).find("2 of them stalled, the oldest for 99s") != std::string::npos);
  follow(disk, "resume", 100s);
  Time now = 100s;
  const auto services = drain(disk, now);
  REQUIRE(services.size() == 2);
  CHECK(services[0].begun == 100s);
  CHECK(services[1].begun == services[0].finishes);
  CHECK(services[1].finishes > 100s + 2 * 1ms);
}

TEST_CASE("a latency holds each request for that long, all of them at the same time, until it is lifted") {
  Disk disk(options());
  follow(disk, "latency 1s 0-1M", 0ms);
  for (std::uint64_t i = 0; i < 4; ++i) disk.submit(read_of(i * kPiece, 100ms));
  disk.submit(read_of(kCapacity / 2, 100ms));
  Time now = 100ms;
  CHECK(drain(disk, now).size() == 1);  // the one that the order is not about
  CHECK(disk.begin(1099ms) == nullptr);
  CHECK(disk.next_change() == 1100ms);
  now = 1100ms;
  const auto services = drain(disk, now);
  REQUIRE(services.size() == 4);
  CHECK(services[0].begun == 1100ms);
  CHECK(services[3].finishes < 1200ms);

  disk.submit(read_of(0, 2s));
  CHECK(disk.begin(2s) == nullptr);
  follow(disk, "resume", 2100ms);
  REQUIRE(disk.begin(2100ms) != nullptr);
  CHECK(disk.service()->begun == 2100ms);
}

TEST_CASE("status names each file that has stalled requests once, and what they are") {
  Disk disk(options());
  follow(disk, "stall file \"a b\"", 0ms);
  for (const char* const name : {"a b", "a b", "other"}) disk.submit(read_of(0, 0ms, name));
  CHECK(follow(disk, "status", 1s) ==
        "done: 0 requests, 0 bytes read, 0 requests failed\n"
        "waiting: 3 requests, 2 of them stalled, the oldest for 1s\n"
        "stalled: read of file \"a b\"\n"
        "fault 1: stall file \"a b\"\n");
}

TEST_CASE("a stall of a range lets the others past, in their usual time") {
  Disk disk(options());
  follow(disk, "stall 0-64K", 0ms);
  disk.submit(read_of(0, 0ms));
  disk.submit(read_of(kPiece, 0ms));
  Time now{0};
  const auto services = drain(disk, now);
  REQUIRE(services.size() == 1);
  CHECK(services[0].request.offset == kPiece);
  CHECK(services[0].finishes < 30ms);
}

TEST_CASE("a stall of a file is about that file's reads and opens") {
  Disk disk(options());
  follow(disk, "stall file x", 0ms);
  disk.submit(read_of(0, 0ms, "x"));
  Request open;
  open.operation = Operation::kOpen;
  open.file = "x";
  CHECK_FALSE(disk.serve_at_once(open, 0ms).has_value());
  open.file = "y";
  CHECK(disk.serve_at_once(open, 0ms).has_value());
  CHECK(disk.begin(1s) == nullptr);
}

TEST_CASE("a fault that lasts for a time ends by itself, at that instant") {
  Disk disk(options());
  follow(disk, "stall for 20s", 5s);
  disk.submit(read_of(0, 6s));
  CHECK(disk.begin(24s) == nullptr);
  CHECK(disk.next_change() == 25s);
  const Service* const service = disk.begin(26s);
  REQUIRE(service != nullptr);
  CHECK(service->begun == 25s);
  CHECK_FALSE(disk.next_change().has_value());
}

TEST_CASE("a delay keeps the head, and ends when it is lifted") {
  Disk disk(options());
  follow(disk, "delay 10s 0-64K", 0ms);
  disk.submit(read_of(0, 0ms));
  disk.submit(read_of(kPiece, 0ms));
  const Service* const slow = disk.begin(0ms);
  REQUIRE(slow != nullptr);
  CHECK(slow->finishes >= 10s);
  follow(disk, "resume", 4s);
  CHECK(disk.service()->finishes == 4s);
  static_cast<void>(disk.finish());
  const Service* const next = disk.begin(4s);
  REQUIRE(next != nullptr);
  CHECK(next->begun == 4s);
  CHECK(next->verdict.delay == 0s);
}

TEST_CASE("EIO strikes the range: once, always") {
  Disk disk(options());
  const bool once = GENERATE(true, false);
  follow(disk, once ? "eio 100K-101K once" : "eio 100K-101K always", 0ms);
  CHECK(verdict_of(disk, read_of(0, 0ms)).error == 0);
  const Verdict struck = verdict_of(disk, read_of(kPiece, 1s));
  CHECK(struck.error == EIO);
  CHECK(struck.faults == "1:eio");
  CHECK(verdict_of(disk, read_of(kPiece, 2s)).error == (once ? 0 : EIO));
  CHECK(disk.serve_at_once(write_of(kPiece, 3s), 3s)->verdict.error == 0);
}

TEST_CASE("EIO by chance strikes about as often as said, and on the same requests for the same seed") {
  const auto run = [](std::uint64_t seed) {
    DiskOptions seeded = options();
    seeded.mechanics.seed = seed;
    Disk disk(seeded);
    follow(disk, "eio 25%", 0ms);
    std::string errors;
    for (std::uint64_t i = 0; i < 2000; ++i)
      errors += verdict_of(disk, read_of(0, i * 1s)).error != 0 ? 'E' : '.';
    return errors;
  };
  const std::string errors = run(7);
  CHECK(run(7) == errors);
  CHECK(run(8) != errors);
  CHECK(std::count(errors.begin(), errors.end(), 'E') == Approx(500).margin(100));  // five sigmas
}

TEST_CASE("short reads end at whole blocks, and never at nothing") {
  Disk disk(options());
  follow(disk, "short", 0ms);
  CHECK(verdict_of(disk, read_of(0, 0ms)).length == kPiece / 2);
  Request odd = read_of(0, 1s);
  odd.length = 3 * 4096;
  CHECK(verdict_of(disk, odd).length == 4096);
  odd.length = 4096;
  CHECK(verdict_of(disk, odd).length == 4096);
}

TEST_CASE("a truncated file ends there") {
  Disk disk(options());
  follow(disk, "truncate file x 100000", 0ms);
  CHECK(disk.size_of("x", 1 << 20) == 100'000);
  CHECK(disk.size_of("x", 5) == 5);
  CHECK(disk.size_of("y", 1 << 20) == 1 << 20);
  CHECK(verdict_of(disk, read_of(0, 0ms, "x")).length == kPiece);
  CHECK(verdict_of(disk, read_of(kPiece, 1s, "x")).length == 100'000 - kPiece);
  CHECK(verdict_of(disk, read_of(2 * kPiece, 2s, "x")).length == 0);
  CHECK(verdict_of(disk, read_of(2 * kPiece, 3s, "y")).length == kPiece);
}

TEST_CASE("a disk that vanished fails everything at once, also what is stalled, until it is back") {
  Disk disk(options());
  follow(disk, "stall", 0ms);
  disk.submit(read_of(0, 0ms));
  follow(disk, "vanish for 5s", 1s);
  const Service* const stalled = disk.begin(1s);
  REQUIRE(stalled != nullptr);
  CHECK(stalled->verdict.error == EIO);
  CHECK(stalled->finishes <= 1s);
  static_cast<void>(disk.finish());
  CHECK(disk.serve_at_once(read_of(0, 2s), 2s)->verdict.error == EIO);
  CHECK(disk.serve_at_once(write_of(0, 2s), 2s)->verdict.error == EIO);
  follow(disk, "resume", 3s);
  CHECK(disk.serve_at_once(read_of(0, 3s), 3s).has_value());
  CHECK_FALSE(disk.serve_at_once(read_of(0, 6s), 6s).has_value());
}

TEST_CASE("writes take no time and do not move the head, unless they are modelled") {
  Disk free(options());
  CHECK(free.serve_at_once(write_of(kCapacity / 2, 1s), 1s)->finishes == 1s);
  follow(free, "stall writes", 1s);
  CHECK_FALSE(free.serve_at_once(write_of(0, 2s), 2s).has_value());
  DiskOptions modelled = options();
  modelled.model_writes = true;
  Disk disk(modelled);
  CHECK_FALSE(disk.serve_at_once(write_of(kCapacity / 2, 1s), 1s).has_value());
  disk.submit(write_of(kCapacity / 2, 1s));
  CHECK(disk.begin(1s)->finishes > 1s + 1ms);
}

TEST_CASE("faults are listed, and lifted one by one or all at once") {
  Disk disk(options());
  follow(disk, "eio 0-4K", 0ms);
  follow(disk, "truncate 10G", 0ms);
  const std::string listed = follow(disk, "status", 0ms);
  CHECK(listed.find("fault 1: eio 0-4K, struck 0 times") != std::string::npos);
  CHECK(listed.find("fault 2: truncate 10G") != std::string::npos);
  follow(disk, "clear 1", 1s);
  CHECK(follow(disk, "status", 1s).find("fault 1") == std::string::npos);
  CHECK(disk.follow(parse_order("clear 1").value(), 1s).error().code == Code::kNotFound);
  follow(disk, "clear", 2s);
  CHECK(follow(disk, "status", 2s).find("fault") == std::string::npos);
}

TEST_CASE("an image knows no files, and the page cache no short reads: both orders are refused") {
  DiskOptions image = options();
  image.knows_files = false;
  image.can_be_short = false;
  Disk disk(image);
  CHECK_FALSE(disk.follow(parse_order("eio file x").value(), 0ms).has_value());
  CHECK_FALSE(disk.follow(parse_order("short").value(), 0ms).has_value());
}

TEST_CASE("what waits can be given up, the one being served included") {
  Disk disk(options());
  disk.submit(read_of(0, 0ms));
  disk.submit(read_of(kPiece, 0ms));
  REQUIRE(disk.begin(0ms) != nullptr);
  CHECK(disk.give_up().size() == 2);
  CHECK(disk.begin(1s) == nullptr);
}

}  // namespace
}  // namespace nvr::slowdisk
