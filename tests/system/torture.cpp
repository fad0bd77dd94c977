// Millions of hand-offs with the wait slice at an hour: a wake that is lost is never made up for, and the run
// does not finish.
//
// A hand-off is a chunk on its whole way: published by the daemon, taken by the client, its slot returned and
// seen by the daemon. With windows of two slots, or all but one held, each of the two sides sleeps all the
// time for want of the other.
//
// The suite runs a slice of it. All of it, with how far it has come:
//   NVR_TORTURE_HANDOFFS=10000000 nvr_torture_tests --engine mmap -s
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <new>
#include <thread>

#include "client/src/connection.h"
#include "shm/clock.h"
#include "tests/support/client_process.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint64_t kHourNs = std::uint64_t{3600} * 1'000'000'000;
constexpr std::uint64_t kFileBytes = 8 * 1024 * 1024 + 4321;
constexpr std::uint64_t kFewChunks = 40;

enum class Style { kBlocking, kEventLoop, kDroppedElsewhere };

struct Lane {
  const char* name;
  Style style;
  unsigned cpus;  // that daemon and client share
  std::uint32_t streams;
  std::uint32_t slots = 2;
  std::size_t held = 0;  // chunks that the reader keeps, so that credit comes one by one, below the threshold
};

constexpr std::array<Lane, 6> kLanes = {{
    {"one blocked reader, two CPUs", Style::kBlocking, 2, 1},
    {"one blocked reader that holds chunks, one CPU", Style::kBlocking, 1, 1, 4, 3},
    {"an event loop, two CPUs", Style::kEventLoop, 2, 2},
    {"an event loop, one CPU", Style::kEventLoop, 1, 1},
    {"chunks dropped by another thread, two CPUs", Style::kDroppedElsewhere, 2, 1},
    {"chunks dropped by another thread, one CPU", Style::kDroppedElsewhere, 1, 1},
}};

std::uint64_t hand_offs_of_a_run() {
  const char* const given = getenv("NVR_TORTURE_HANDOFFS");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : scaled<std::uint64_t>(1'000'000, 60'000);
}

// This process, and what it starts, runs on so many of its CPUs for a while.
class Pinned {
 public:
  explicit Pinned(unsigned cpus) {
    sched_getaffinity(0, sizeof(before_), &before_);
    cpu_set_t few;
    CPU_ZERO(&few);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&few) < static_cast<int>(cpus); ++cpu)
      if (CPU_ISSET(cpu, &before_)) CPU_SET(cpu, &few);
    sched_setaffinity(0, sizeof(few), &few);
  }
  ~Pinned() { sched_setaffinity(0, sizeof(before_), &before_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  cpu_set_t before_ = {};
};

// A counter that this process and the client see.
class SharedCount {
 public:
  SharedCount()
      : memory_(mmap(nullptr, sizeof(std::atomic<std::uint64_t>), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0)),
        count_(new (memory_) std::atomic<std::uint64_t>(0)) {}
  ~SharedCount() { munmap(memory_, sizeof(std::atomic<std::uint64_t>)); }
  SharedCount(const SharedCount&) = delete;
  SharedCount& operator=(const SharedCount&) = delete;

  std::atomic<std::uint64_t>& operator*() const { return *count_; }

 private:
  void* memory_;
  std::atomic<std::uint64_t>* count_;
};

// ---- The client
// ------------------------------------------------------------------------------------------------------

// What takes chunks: checks them, and dawdles now and then.
class Taker {
 public:
  Taker(const RecordingFile& file, std::uint64_t seed, std::atomic<std::uint64_t>& taken)
      : content_(file.bytes(0, file.size)), random_(seed), taken_(taken), id_(file.id) {}

  // From a single byte to many chunks, at any offset.
  [[nodiscard]] OpenRequest any_range() {
    const std::uint64_t length =
        pick(random_, 0, 3) == 0 ? pick(random_, 1, kChunkBytes) : pick(random_, 1, kFewChunks * kChunkBytes);
    const std::uint64_t begin = pick(random_, 0, content_.size() - length);
    return {.recording = id_, .begin = begin, .end = begin + length};
  }
  void take(const Chunk& chunk) {
    const auto bytes = chunk.bytes();
    const auto* const expected = content_.data() + chunk.offset();
    Reporter::require(bytes.front() == expected[0] && bytes.back() == expected[bytes.size() - 1],
                      "wrong bytes");
    const std::uint64_t dice = pick(random_, 0, 255);
    if (dice < 8)
      Reporter::require(std::equal(bytes.begin(), bytes.end(), expected), "wrong bytes in the middle");
    else if (dice < 12)
      std::this_thread::sleep_for(std::chrono::microseconds(pick(random_, 1, 80)));
    else if (dice < 40)
      for (std::uint64_t i = pick(random_, 1, 200); i > 0; --i) shm::cpu_relax();
    taken_.fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] bool is_done(std::uint64_t total) const {
    return taken_.load(std::memory_order_relaxed) >= total;
  }

 private:
  std::vector<std::byte> content_;
  Random random_;
  std::atomic<std::uint64_t>& taken_;
  RecordingId id_;
};

void read_blocking(Client& client, Taker& taker, std::uint64_t total, std::size_t hold) {
  while (!taker.is_done(total)) {
    Stream stream = open_stream(client, taker.any_range());
    std::deque<Chunk> held;
    for (auto& next : stream) {
      Reporter::require(next.has_value(), next ? "" : to_string(next.error()));
      taker.take(*next);
      if (hold == 0) continue;
      if (held.size() == hold) held.pop_front();
      held.push_back(std::move(*next));
    }
  }
}

// As above, with a second thread that drops what the first has taken.
void read_and_drop_elsewhere(Client& client, Taker& taker, std::uint64_t total) {
  std::mutex mutex;
  std::vector<Chunk> taken;
  std::atomic<std::uint32_t> pending = 0;  // futex word: how many are in `taken`, or kOver
  constexpr std::uint32_t kOver = UINT32_MAX;
  std::thread dropper([&] {
    for (;;) {
      pending.wait(0);
      if (pending.load() == kOver) return;
      const std::scoped_lock lock(mutex);
      taken.clear();
      if (std::uint32_t seen = pending.load(); seen != kOver) pending.compare_exchange_strong(seen, 0);
    }
  });
  while (!taker.is_done(total)) {
    Stream stream = open_stream(client, taker.any_range());
    for (;;) {
      auto next = stream.next();
      if (!next) break;
      if (!*next && next->error().code == Code::kResourceExhausted) {  // the other thread has them all
        std::this_thread::yield();
        continue;
      }
      Reporter::require(next->has_value(), *next ? "" : to_string(next->error()));
      taker.take(**next);
      const std::scoped_lock lock(mutex);
      taken.push_back(std::move(**next));
      pending.store(static_cast<std::uint32_t>(taken.size()));
      pending.notify_one();
    }
  }
  pending.store(kOver);
  pending.notify_one();
  dropper.join();
}

void read_in_event_loop(Client& client, Taker& taker, std::uint64_t total, std::uint32_t streams) {
  std::vector<std::optional<Stream>> readings(streams);
  pollfd entry = {.fd = client.native_handle(), .events = POLLIN, .revents = 0};
  Reporter::require(client.dispatch().has_value(), "dispatch");
  while (!taker.is_done(total)) {
    bool opened = false;
    for (auto& reading : readings) {
      if (!reading) reading.emplace(open_stream(client, taker.any_range()));
      for (;;) {
        auto next = reading->try_next();
        if (next && *next) {
          taker.take(**next);
          continue;
        }
        Reporter::require(!next || next->error().code == Code::kDeadlineExceeded,
                          next ? to_string(next->error()) : "");
        if (next) break;
        reading.reset();
        opened = true;  // will be, in the next turn
        break;
      }
    }
    if (opened) continue;
    while (poll(&entry, 1, -1) < 0) Reporter::require(errno == EINTR, "poll");
    Reporter::require(client.dispatch().has_value(), "dispatch");
  }
}

void be_client(const Lane& lane, const std::string& socket, const RecordingFile& file,
               std::atomic<std::uint64_t>& taken, std::uint64_t total) {
  internal::wait_slice_ns = kHourNs;
  struct sigaction action = {};
  action.sa_handler = [](int) {};  // without SA_RESTART
  sigaction(SIGUSR1, &action, nullptr);
  Client client = connect_to(socket, {.streams = lane.streams, .slots_per_stream = lane.slots});
  Taker taker(file, test_seed(), taken);
  switch (lane.style) {
    case Style::kBlocking:
      return read_blocking(client, taker, total, lane.held);
    case Style::kEventLoop:
      return read_in_event_loop(client, taker, total, lane.streams);
    case Style::kDroppedElsewhere:
      return read_and_drop_elsewhere(client, taker, total);
  }
}

// ---- The tormentor
// ---------------------------------------------------------------------------------------------------

// Stops and continues either process, and interrupts the client's threads, for some milliseconds. Leaves all
// running.
void torment(const DaemonProcess& daemon, const ClientProcess& client) {
  Random& random = test_random();
  std::vector<pid_t> threads;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(client.pid()) + "/task"))
    threads.push_back(std::stoi(task.path().filename()));
  const auto dawdle = [&] { std::this_thread::sleep_for(std::chrono::microseconds(pick(random, 0, 300))); };
  for (int i = 0; i < 20; ++i) {
    switch (pick(random, 0, 3)) {
      case 0:
        daemon.signal(SIGSTOP);
        dawdle();
        daemon.signal(SIGCONT);
        break;
      case 1:
        client.signal(SIGSTOP);
        dawdle();
        client.signal(SIGCONT);
        break;
      default:
        for (int k = 0; k < 10; ++k)
          syscall(SYS_tgkill, client.pid(), threads[pick(random, 0, threads.size() - 1)], SIGUSR1);
    }
    dawdle();
  }
}

// Waits until `taken` has reached `goal`; false when it moves no more. Counts pauses rather than time, so
// that a machine that stands still for a while is no matter.
bool reaches(const std::atomic<std::uint64_t>& taken, std::uint64_t goal) {
  constexpr std::chrono::milliseconds kPause{2};
  std::uint64_t seen = taken.load();
  for (auto idle = kLongEnough / kPause; seen < goal && idle > 0; --idle) {
    std::this_thread::sleep_for(kPause);
    const std::uint64_t now = taken.load();
    if (now != seen) idle = kLongEnough / kPause;
    seen = now;
  }
  return seen >= goal;
}

// A signal ends a sleep, and so could hide a wake that was lost: after each torment comes a quiet time, in
// which whoever sleeps for good has slept for good.
void run(const Lane& lane, std::uint64_t total, bool with_signals) {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kFileBytes);
  const SharedCount taken;
  const Pinned pinned(lane.cpus);
  const DaemonProcess daemon = site.start();
  ClientProcess client =
      ClientProcess::start([&](const Reporter&) { be_client(lane, site.socket(), file, *taken, total); });
  const auto begun = Clock::now();
  std::uint64_t torments = 0;
  REQUIRE(reaches(*taken, 1));  // its handler is in place
  while (*taken < total) {
    if (with_signals) torment(daemon, client), ++torments;
    const std::uint64_t before = *taken;
    const std::uint64_t quiet = with_signals ? 400 : total / 4;
    INFO(lane.name << ": " << before << " of " << total << " hand-offs, then no more");
    REQUIRE(reaches(*taken, std::min(total, before + quiet)));
  }
  CHECK(client.failure() == "");
  CHECK(daemon.total("violations") == 0);
  const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  std::fprintf(stderr,
               "torture [%s]: %s: %llu hand-offs, %llu torments, %llu sleeps of the disk thread, %.1f s\n",
               engine_under_test().c_str(), lane.name, static_cast<unsigned long long>(*taken),
               static_cast<unsigned long long>(torments),
               static_cast<unsigned long long>(daemon.total("sleeps")), seconds);
}

void run_all(std::uint64_t total, bool with_signals) {
  alarm(0);  // reaches() notices what stands still, however long the whole takes
  for (const Lane& lane : kLanes) run(lane, total / kLanes.size() + 1, with_signals);
}

TEST_CASE("torture: no wake is lost between sleepers that nothing else wakes") {
  run_all(hand_offs_of_a_run(), false);
}

TEST_CASE("torture: stopped, continued and interrupted at any time") {
  run_all(hand_offs_of_a_run() / 10, true);
}

}  // namespace
}  // namespace nvr::test
