// What a chunk costs in the steady state, counted rather than timed: allocations, system calls, wakes and
// copies, on both sides, of recordings that are in memory.
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <iostream>
#include <numeric>
#include <vector>

#include "shm/mapping.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"
#include "tests/support/system_calls.h"

extern "C" unsigned long long nvr_test_allocations(void);

namespace nvr::test {
namespace {

constexpr std::uint64_t kChunksOfFile = 2048;
constexpr std::uint64_t kEdge = 128;  // chunks at a stream's begin and end that do not count
constexpr std::uint64_t kInTheMidst = kChunksOfFile - 2 * kEdge;
constexpr std::uint64_t kStreams = 140;         // 250,000 chunks in their midst
constexpr std::uint32_t kReadersBeforeHot = 4;  // after them the daemon copies from a map (FileMaps)

// What the machine decides: how often either side sleeps and is woken, and looks again at what is in memory
// and at the file's size, because it did so more than 10 ms ago (tests/daemon/files_test.cpp counts these
// looks).
const std::vector<long> kSleepsAndLooks = {
    SYS_futex,          449 /* futex_waitv */,
    SYS_read,           SYS_write,
    SYS_epoll_pwait,    SYS_ppoll,
    SYS_io_uring_enter, SYS_mincore,
    SYS_pread64,        SYS_fstat,
    SYS_newfstatat,     SYS_statx,
#ifdef SYS_epoll_wait
    SYS_epoll_wait,     SYS_poll,
#endif
};

// What has been counted so far.
struct Counts {
  std::uint64_t client_allocations = 0;
  std::uint64_t daemon_allocations = 0;
  std::uint64_t client_calls = 0;
  std::uint64_t daemon_calls = 0;
  std::uint64_t client_work = 0;  // of the calls, all but kSleepsAndLooks
  std::uint64_t daemon_work = 0;

  Counts& operator+=(const Counts& other) {
    client_allocations += other.client_allocations;
    daemon_allocations += other.daemon_allocations;
    client_calls += other.client_calls;
    daemon_calls += other.daemon_calls;
    client_work += other.client_work;
    daemon_work += other.daemon_work;
    return *this;
  }
  friend Counts operator-(const Counts& a, const Counts& b) {
    return {.client_allocations = a.client_allocations - b.client_allocations,
            .daemon_allocations = a.daemon_allocations - b.daemon_allocations,
            .client_calls = a.client_calls - b.client_calls,
            .daemon_calls = a.daemon_calls - b.daemon_calls,
            .client_work = a.client_work - b.client_work,
            .daemon_work = a.daemon_work - b.daemon_work};
  }
};

// A daemon whose allocations are counted, and recordings that are in memory.
class Meter {
 public:
  explicit Meter(std::uint32_t slots, std::optional<uid_t> owner = {})
      : file_(record(owner)),
        daemon_(start()),
        client_(connect_to(daemon_, {.streams = 1, .slots_per_stream = slots})),
        daemon_calls_(daemon_.pid()),
        client_calls_(SystemCalls::of_thread(gettid())),
        daemon_work_(daemon_.pid(), kSleepsAndLooks),
        client_work_(SystemCalls::of_thread(gettid(), kSleepsAndLooks)) {
    for (std::uint32_t i = 0; i < kReadersBeforeHot; ++i)
      if (const auto problem = problem_reading(client_, file_); !problem.empty()) throw TestFailure(problem);
  }

  [[nodiscard]] Client& client() { return client_; }
  [[nodiscard]] const RecordingFile& file() const { return file_; }
  [[nodiscard]] const DaemonProcess& daemon() const { return daemon_; }
  [[nodiscard]] Counts counts() const {
    const auto* const allocations = reinterpret_cast<const volatile std::uint64_t*>(allocations_map_->data());
    return {.client_allocations = nvr_test_allocations(),
            .daemon_allocations = *allocations,
            .client_calls = client_calls_.count(),
            .daemon_calls = daemon_calls_.count(),
            .client_work = client_work_.count(),
            .daemon_work = daemon_work_.count()};
  }

 private:
  RecordingFile record(std::optional<uid_t> owner) {
    RecordingFile file = site_.record({1, 1}, kChunksOfFile * kChunkBytes);
    const std::string path = site_.directory() + "/" + file_name_of({1, 1});
    if (owner && chown(path.c_str(), *owner, static_cast<gid_t>(-1)) != 0)
      throw TestFailure("cannot give a recording to another user");
    return file;
  }
  DaemonProcess start() {
    const std::string path = site_.root() / "allocations";
    write_file(path, std::string(sizeof(std::uint64_t), '\0'));
    const shm::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    auto map = shm::Mapping::create(fd.get(), 0, sizeof(std::uint64_t), shm::Access::kReadOnly, "a count");
    if (!map) throw TestFailure(map.error().message);
    allocations_map_.emplace(std::move(*map));
    setenv("NVR_TEST_ALLOCATIONS", path.c_str(), 1);
    setenv("LD_PRELOAD", NVR_TEST_COUNT_ALLOCATIONS, 1);
    DaemonProcess daemon = site_.start({"--device-kind", "solid"});
    unsetenv("LD_PRELOAD");
    unsetenv("NVR_TEST_ALLOCATIONS");
    return daemon;
  }

  Site site_;
  std::optional<shm::Mapping> allocations_map_;
  RecordingFile file_;
  DaemonProcess daemon_;
  Client client_;
  SystemCalls daemon_calls_;
  SystemCalls client_calls_;
  SystemCalls daemon_work_;
  SystemCalls client_work_;
};

// As a consumer does: every cache line.
std::uint64_t sum_of(std::span<const std::byte> bytes) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at + sizeof(sum) <= bytes.size(); at += 64) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    sum += word;
  }
  return sum;
}

// Takes `count` chunks. Their sum, so that nobody leaves it out.
std::uint64_t take(Stream& stream, std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto chunk = stream.next(in(kLongEnough));
    if (!chunk || !*chunk) throw TestFailure("the stream does not go on");
    sum += sum_of((*chunk)->bytes());
  }
  return sum;
}

struct Cost {
  std::vector<Counts> in_the_midst;  // of each stream
  std::uint64_t wakes = 0;           // of whole streams

  [[nodiscard]] Counts total() const {
    return std::accumulate(in_the_midst.begin(), in_the_midst.end(), Counts(),
                           [](Counts sum, const Counts& stream) { return sum += stream; });
  }
  // Per chunk.
  [[nodiscard]] double mean(std::uint64_t Counts::*what) const {
    return static_cast<double>(total().*what) / static_cast<double>(in_the_midst.size() * kInTheMidst);
  }
  // The same of the stream in the middle: of all streams, sorted by what they cost.
  [[nodiscard]] double median(std::uint64_t Counts::*what) const {
    std::vector<Counts> sorted = in_the_midst;
    std::ranges::sort(sorted, {}, what);
    return static_cast<double>(sorted[sorted.size() / 2].*what) / static_cast<double>(kInTheMidst);
  }
  [[nodiscard]] double wakes_per_chunk() const {
    return static_cast<double>(wakes) / static_cast<double>(in_the_midst.size() * kChunksOfFile);
  }
};

Cost cost_of_streams(Meter& meter) {
  Cost cost;
  std::uint64_t sum = 0;
  const std::uint64_t wakes = meter.daemon().total("wakes");
  while (cost.in_the_midst.size() < kStreams) {
    Stream stream = open_stream(meter.client(), meter.file());
    sum += take(stream, kEdge);
    const Counts before = meter.counts();
    const std::uint64_t part = take(stream, kInTheMidst);
    cost.in_the_midst.push_back(meter.counts() - before);
    sum += part + take(stream, kEdge);
    if (stream.next(in(kLongEnough)).has_value()) throw TestFailure("the stream does not end");
  }
  cost.wakes = meter.daemon().total("wakes") - wakes;
  REQUIRE(sum != 0);
  return cost;
}

void check_cost(Meter& meter) {
  // A read by system call would cost 0.06, and a call for each chunk 1.
  constexpr double kMostWork = 0.01;
  constexpr double kMostCalls = 0.5;
  const Cost cost = cost_of_streams(meter);
  std::cout << "per chunk, " << engine_under_test() << ": system calls " << cost.mean(&Counts::daemon_calls)
            << " (daemon) " << cost.mean(&Counts::client_calls) << " (client), of which work "
            << cost.median(&Counts::daemon_work) << " and " << cost.median(&Counts::client_work) << "; wakes "
            << cost.wakes_per_chunk() << '\n';
  CHECK(cost.total().client_allocations == 0);
  CHECK(cost.total().daemon_allocations == 0);
  CHECK(cost.median(&Counts::daemon_work) < kMostWork);
  CHECK(cost.median(&Counts::client_work) < kMostWork);
  CHECK(cost.mean(&Counts::daemon_calls) < kMostCalls);
  CHECK(cost.mean(&Counts::client_calls) < kMostCalls);
  CHECK(cost.wakes_per_chunk() < 0.25);
}

TEST_CASE("in the midst of a stream a chunk costs no allocation, and few system calls and wakes") {
  if (const auto reason = SystemCalls::missing()) return skip_or_fail(*reason);
  Meter meter(64);
  check_cost(meter);
}

// The packaged daemon has a user of its own, and owns no recording.
TEST_CASE("a chunk of another user's recording costs no more") {
  if (const auto reason = SystemCalls::missing()) return skip_or_fail(*reason);
  constexpr uid_t kRecorder = 1;
  Meter meter(64, kRecorder);
  check_cost(meter);
}

TEST_CASE("the allocations of a daemon and of this process are counted") {
  if (const auto reason = SystemCalls::missing()) return skip_or_fail(*reason);
  Meter meter(64);
  const Counts before = meter.counts();
  static_cast<void>(problem_reading(meter.client(), meter.file()));  // an open costs some on both sides
  const Counts cost = meter.counts() - before;
  CHECK(cost.client_allocations > 0);
  CHECK(cost.daemon_allocations > 0);
  CHECK(cost.client_calls > 0);
  CHECK(cost.daemon_calls > 0);
}

TEST_CASE("the client's chunks are the daemon's memory: nothing copies them") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 64 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 8});
  Stream stream = open_stream(client, file);
  const auto maps = mappings_of(getpid());
  while (const auto chunk = stream.next()) {
    REQUIRE(chunk->has_value());
    const auto at = reinterpret_cast<std::uintptr_t>((*chunk)->bytes().data());
    const auto map = std::ranges::find_if(
        maps, [&](const MapEntry& entry) { return at >= entry.begin && at < entry.end; });
    REQUIRE(map != maps.end());
    CHECK(map->permissions == "r--s");
    CHECK(map->name.find("memfd:") != std::string::npos);
    // The same pages in the daemon: what it wrote there is what is read here.
    CHECK(std::ranges::any_of(mappings_of(daemon.pid()),
                              [&](const MapEntry& entry) { return entry.name == map->name; }));
  }
}

}  // namespace
}  // namespace nvr::test
