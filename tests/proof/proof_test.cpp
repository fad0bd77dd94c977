// No wake is lost, no slot is reused early, nobody waits for ever: shm/ring.h, shm/wake.h and the client's
// count of unrung credit, in every schedule of small scenarios and with every stale read that C++ allows. And
// the proof is worth something: each mutant is caught.
//
// The code is real. What calls it (daemon.cpp, client.cpp) is the sequence of the sources, without files,
// sockets and time.
#include <catch2/catch.hpp>
#include <cstdio>
#include <string>
#include <string_view>

#include "tests/proof/client.h"
#include "tests/proof/daemon.h"
#include "tests/proof/explorer.h"

namespace nvr::proof {
namespace {

// A scenario, set up.
class Scene {
 public:
  explicit Scene(const Scenario& scenario, Mutant mutant = Mutant::kNone)
      : scenario_(scenario), wires_(world_, scenario, mutant) {
    world_.flags = kUnlocked;
    const Disk disk(world_, wires_);
    world_.add_thread("disk thread", disk);
    add_epoch("need_doorbell", "rung_for, the client's", kDisk, disk);
    add_clients();
    rules_.wrong_at_rest = [this](const State& state, ThreadMask stalled) {
      return wrong_at_rest(state, stalled);
    };
    if (scenario.two_wakers) rules_.may_stall = mask(kReader);
    if (scenario.daemon_dies) rules_.victim = kDisk;
    rules_.death_object = kSocket;
    rules_.death_flag = kDead;
  }

  World& world() { return world_; }
  Exploration run() { return explore(world_, rules_); }

 private:
  template <class T>
  void add_epoch(const char* word, const char* rung_for, std::size_t sleeper, const T& thread) {
    static_assert(sizeof(Sleeper) == 2 * sizeof(void*));  // the address of the word, then the value
    const auto offset =
        reinterpret_cast<const char*>(&thread.sleeper()) - reinterpret_cast<const char*>(&thread);
    world_.epochs.push_back({.epoch_word = world_.word(word),
                             .rung_for_word = world_.word(rung_for),
                             .sleeper = sleeper,
                             .value_offset = static_cast<std::size_t>(offset) + sizeof(void*)});
  }
  void add_clients() {
    if (scenario_.two_wakers) {
      world_.add_thread("waker", Returner{&wires_, 0});
      world_.add_thread("other waker", Returner{&wires_, 1});
      return;
    }
    if (scenario_.event_loop) {
      const EventLoop loop(wires_);
      world_.add_thread("event loop", loop);
      add_epoch("want_byte", "rung_for, the disk thread's 3", kReader, loop);
    } else {
      const User reader(wires_, 0);
      world_.add_thread("reader", reader);
      add_epoch("waiting", "rung_for, the disk thread's", kReader, reader);
    }
    if (scenario_.cancels)
      world_.add_thread("canceller", Canceller{&wires_});
    else if (scenario_.finishes)
      world_.add_thread("finisher", Finisher{&wires_});
    else if (scenario_.helper_drops)
      world_.add_thread("helper", Dropper{&wires_});
    else
      world_.add_thread("", Idler());
    if (scenario_.has_engine && !scenario_.disk_is_stuck) world_.add_thread("engine", Engine{&wires_});
  }

  const User& user(const State& state, std::uint32_t stream) const {
    const void* const locals = state.threads[kReader].locals.data();
    return scenario_.event_loop ? static_cast<const EventLoop*>(locals)->user(stream)
                                : *static_cast<const User*>(locals);
  }

  const char* wrong_at_rest(const State& state, ThreadMask stalled) const {
    if (state.threads[kDisk].is_done) {
      const bool is_over = state.threads[kReader].is_done && state.threads[kHelper].is_done;
      return is_over ? nullptr : "the daemon is dead, and a thread of the client waits for it";
    }
    const auto& disk = *reinterpret_cast<const Disk*>(state.threads[kDisk].locals.data());
    if (!scenario_.two_wakers &&
        state.latest(wires_.commands.command_tail.id()) != kFirstIndex + disk.commands_taken)
      return "lost wake: the disk thread sleeps, and a command is there";
    const bool is_client_done = state.threads[kReader].is_done && state.threads[kHelper].is_done;
    if (is_client_done && !scenario_.two_wakers) return nullptr;
    for (std::uint32_t i = 0; i < scenario_.streams; ++i) {
      const ServedStream& served = disk.streams[i];
      const Wires::Stream& stream = wires_.streams[i];
      const bool is_stalled = scenario_.two_wakers && (stalled & mask(kReader + i)) != 0;
      if (served.is_starved && !is_stalled &&
          state.latest(stream.credit.return_tail.id()) != kFirstIndex + served.slots_taken)
        return "lost wake: the disk thread sleeps, and the credit that it waits for is there";
      if (scenario_.two_wakers) continue;
      if (!scenario_.event_loop && scenario_.cancels && state.latest(stream.stopped.id()) != 0 &&
          state.queued[kReader] != 0 && state.threads[kHelper].is_done && user(state, i).is_in_first_stream())
        return "lost wake: a reader sleeps that was cancelled";
      if (state.latest(stream.publication.head.id()) != kFirstIndex + user(state, i).taken)
        return scenario_.event_loop ? "lost wake: the event loop sleeps, and something was published for it"
                                    : "lost wake: a reader sleeps, and something was published for it";
    }
    return is_client_done || stalled != 0 ? nullptr : "deadlock: a thread of the client does not get on";
  }

  const Scenario scenario_;
  World world_;
  Wires wires_;
  Rules rules_;
};

std::string to_text(const Finding& finding) {
  std::string text = finding.what + ", after";
  for (const std::string& step : finding.schedule) text += "\n    " + step;
  return text;
}

void check_holds(const Scenario& scenario, Mutant mutant = Mutant::kNone) {
  Scene scene(scenario, mutant);
  const Exploration explored = scene.run();
  std::printf("proof: %s: %zu states, %zu steps\n", scenario.name, explored.states, explored.steps);
  INFO(scenario.name << ": " << (explored.finding ? to_text(*explored.finding) : ""));
  CHECK_FALSE(explored.finding);
  CHECK(explored.ends > 0);
}

void check_found(Scene& scene, const Scenario& scenario, std::string_view what) {
  const Exploration explored = scene.run();
  INFO(scenario.name << ": " << explored.states << " states");
  REQUIRE(explored.finding);
  std::printf("proof: caught in %zu states: %s, %zu steps from the start\n", explored.states,
              explored.finding->what.c_str(), explored.finding->schedule.size());
  INFO(to_text(*explored.finding));
  CHECK(explored.finding->what == what);
}

void check_caught(Mutant mutant, const Scenario& scenario, std::string_view what) {
  Scene scene(scenario, mutant);
  check_found(scene, scenario, what);
}

// What the words' stores and loads are without a part of their order.
constexpr std::uint32_t kAll = kSeqCst | kAcquire | kRelease;
void check_weakened_caught(const char* word, std::uint32_t stores, std::uint32_t loads,
                           const Scenario& scenario, std::string_view what) {
  Scene scene(scenario);
  World::WordInfo& info = scene.world().words[scene.world().word(word)];
  info.weakened_stores = stores;
  info.weakened_loads = loads;
  check_found(scene, scenario, what);
}

constexpr std::string_view kReaderSleeps = "lost wake: a reader sleeps, and something was published for it";
constexpr std::string_view kLoopSleeps =
    "lost wake: the event loop sleeps, and something was published for it";
constexpr std::string_view kDiskMissesCommand = "lost wake: the disk thread sleeps, and a command is there";
constexpr std::string_view kDiskMissesCredit =
    "lost wake: the disk thread sleeps, and the credit that it waits for is there";

constexpr Scenario kOneChunk = {.name = "one reader of one chunk", .chunks = 1};
constexpr Scenario kOneReader = {.name = "one reader that drops each chunk", .generations = 2};
constexpr Scenario kThreshold = {.name = "held chunks, and a threshold that is never reached",
                                 .window = 4,
                                 .threshold = 2,
                                 .chunks = 6,
                                 .keep = 3};
constexpr Scenario kShownEarly = {
    .name = "chunks seen before the reader is woken for them", .generations = 2, .shows_early = true};
constexpr Scenario kWindowHeld = {.name = "the whole window held, beyond the stream's end too",
                                  .threshold = 2,
                                  .generations = 2,
                                  .keep = 2};
constexpr Scenario kDropper = {
    .name = "chunks dropped by another thread", .threshold = 2, .chunks = 2, .helper_drops = true};
constexpr Scenario kSlowDropper = {.name = "a chunk held, the other one dropped by another thread",
                                   .threshold = 2,
                                   .keep = 1,
                                   .helper_drops = true,
                                   .begins_starved = true};
constexpr Scenario kTwoWakers = {
    .name = "two threads ring, one of which may be descheduled for ever", .streams = 2, .two_wakers = true};
constexpr Scenario kCancelled = {.name = "cancelled by another thread", .chunks = 1, .cancels = true};
constexpr Scenario kReopened = {
    .name = "cancelled by another thread, then opened again", .chunks = 1, .generations = 2, .cancels = true};
constexpr Scenario kStuck = {.name = "cancelled by another thread while the disk is stuck",
                             .chunks = 1,
                             .cancels = true,
                             .has_engine = true,
                             .disk_is_stuck = true};
constexpr Scenario kFinished = {
    .name = "a growing file, finished by another thread", .chunks = 1, .finishes = true};
constexpr Scenario kCommands = {
    .name = "OPEN, FINISH and CLOSE in one go", .chunks = 0, .generations = 4, .posts_all = true};
constexpr Scenario kAbandoned = {
    .name = "streams closed after any chunk", .chunks = 2, .generations = 2, .keep = 1, .abandons = true};
constexpr Scenario kReadInFlight = {.name = "streams closed while a read is in flight",
                                    .chunks = 2,
                                    .generations = 2,
                                    .abandons = true,
                                    .has_engine = true};
constexpr Scenario kEventLoop = {
    .name = "an event loop", .threshold = 2, .generations = 2, .keep = 1, .event_loop = true};
constexpr Scenario kEventLoopShownEarly = {.name = "an event loop, chunks seen before it is told of them",
                                           .threshold = 2,
                                           .keep = 1,
                                           .shows_early = true,
                                           .event_loop = true};
constexpr Scenario kEventLoopHeld = {.name = "an event loop, the whole window held",
                                     .threshold = 2,
                                     .chunks = 4,
                                     .keep = 2,
                                     .event_loop = true};
constexpr Scenario kEventLoopTwo = {
    .name = "an event loop over two streams", .streams = 2, .chunks = 1, .event_loop = true};
constexpr Scenario kDaemonDies = {.name = "the daemon dies under a reader", .chunks = 2, .daemon_dies = true};
constexpr Scenario kDaemonDiesEventLoop = {
    .name = "the daemon dies under an event loop", .chunks = 2, .event_loop = true, .daemon_dies = true};

// ---- As it is

TEST_CASE("proof: no wake is lost: a blocked reader") {
  for (const Scenario& scenario : {kOneReader, kThreshold, kShownEarly, kWindowHeld}) check_holds(scenario);
}
TEST_CASE("proof: no wake is lost: chunks dropped by another thread") {
  for (const Scenario& scenario : {kDropper, kSlowDropper}) check_holds(scenario);
}
TEST_CASE("proof: no wake is lost: two threads share a Waker") {
  check_holds(kTwoWakers);
}
TEST_CASE("proof: no wake is lost: another thread cancels") {
  for (const Scenario& scenario : {kCancelled, kReopened, kStuck}) check_holds(scenario);
}
TEST_CASE("proof: no wake is lost: FINISH, and every command at once") {
  for (const Scenario& scenario : {kFinished, kCommands}) check_holds(scenario);
}
TEST_CASE("proof: no slot is reused early: streams closed before their end") {
  for (const Scenario& scenario : {kAbandoned, kReadInFlight}) check_holds(scenario);
}
TEST_CASE("proof: no wake is lost: an event loop") {
  for (const Scenario& scenario : {kEventLoop, kEventLoopShownEarly, kEventLoopHeld, kEventLoopTwo})
    check_holds(scenario);
}
TEST_CASE("proof: what was published comes before the daemon's death") {
  for (const Scenario& scenario : {kDaemonDies, kDaemonDiesEventLoop}) check_holds(scenario);
}

// ---- Memory orders

TEST_CASE("proof: mutant: announce with release is caught") {
  check_weakened_caught("need_doorbell", kRelease, kAll, kOneChunk, kDiskMissesCommand);
  check_weakened_caught("want_byte", kRelease, kAll, kEventLoop, kLoopSleeps);
}
TEST_CASE("proof: mutant: publishing with release is caught") {
  check_weakened_caught("head", kRelease, kAll, kOneReader, kReaderSleeps);
  check_weakened_caught("head", kRelease, kAll, kEventLoop, kLoopSleeps);
  check_weakened_caught("command_tail", kRelease, kAll, kOneChunk, kDiskMissesCommand);
  check_weakened_caught("return_tail", kRelease, kAll, kThreshold, kDiskMissesCredit);
  check_weakened_caught("return_tail", kRelease, kAll, kEventLoop, kDiskMissesCredit);
}
TEST_CASE("proof: mutant: the waker's or the sleeper's look with acquire is caught") {
  check_weakened_caught("need_doorbell", kAll, kAcquire, kOneChunk, kDiskMissesCommand);
  check_weakened_caught("want_byte", kAll, kAcquire, kEventLoop, kLoopSleeps);
  check_weakened_caught("command_tail", kAll, kAcquire, kOneChunk, kDiskMissesCommand);
  check_weakened_caught("return_tail", kAll, kAcquire, kThreshold, kDiskMissesCredit);
  check_weakened_caught("head", kAll, kAcquire, kEventLoop, kLoopSleeps);
}
TEST_CASE("proof: mutant: an index without release or acquire is a data race") {
  check_weakened_caught("head", kSeqCst, kAll, kOneReader, "reader: data race on a descriptor");
  check_weakened_caught("head", kAll, kSeqCst, kOneReader, "reader: data race on a descriptor");
  check_weakened_caught("command_tail", kSeqCst, kAll, kOneReader, "disk thread: data race on a command");
  check_weakened_caught("command_tail", kAll, kSeqCst, kOneReader, "disk thread: data race on a command");
  check_weakened_caught("return_tail", kSeqCst, kAll, kOneReader,
                        "disk thread: data race on a returned number");
  check_weakened_caught("return_tail", kAll, kSeqCst, kOneReader,
                        "disk thread: data race on a returned number");
}

// ---- Sequences

TEST_CASE("proof: mutant: no second look before epoll is caught") {
  check_caught(Mutant::kNoSecondLook, kOneChunk, kDiskMissesCommand);
}
TEST_CASE("proof: mutant: the ring recorded before it is rung is caught") {
  check_caught(Mutant::kRecordsBeforeRing, kTwoWakers, kDiskMissesCredit);
}
TEST_CASE("proof: mutant: the eventfd drained after the look is caught") {
  check_caught(Mutant::kDrainAfterLook, kOneChunk, kDiskMissesCommand);
}
TEST_CASE("proof: mutant: waiting cleared between second look and sleep is caught") {
  check_caught(Mutant::kRetiresBeforeSleep, kOneReader, kReaderSleeps);
}
TEST_CASE("proof: mutant: nobody woken for what could be seen before is caught") {
  check_caught(Mutant::kShownIsPublished, kShownEarly, kReaderSleeps);
  check_caught(Mutant::kShownIsPublished, kEventLoopShownEarly, kLoopSleeps);
}
TEST_CASE("proof: mutant: the kernel's value compare removed is caught") {
  check_caught(Mutant::kNoValueCompare, kOneReader, kReaderSleeps);
}
TEST_CASE("proof: mutant: a futex wake that reached nobody counts is caught") {
  check_caught(Mutant::kVainRingCounts, kOneReader, kReaderSleeps);
}
TEST_CASE("proof: mutant: the socket drained after want_byte was raised is caught") {
  check_caught(Mutant::kDispatchAnnouncesFirst, kEventLoop, kLoopSleeps);
}
TEST_CASE("proof: mutant: each sleep announced with the same value is caught") {
  Scene scene(kOneReader);
  for (const char* word : {"need_doorbell", "waiting", "want_byte"})
    scene.world().words[scene.world().word(word)].stored_bits = 1;
  scene.world().epochs.clear();
  check_found(scene, kOneReader, kDiskMissesCredit);
}
TEST_CASE("proof: mutant: no ring for returned credit before the sleep is caught") {
  check_caught(Mutant::kNoRingForCredit, kThreshold, kDiskMissesCredit);
  check_caught(Mutant::kNoRingForCredit, kEventLoop, kDiskMissesCredit);
}
TEST_CASE("proof: mutant: the reader counted as waiting after it looked for unrung credit is caught") {
  check_caught(Mutant::kWaitingSetLate, kSlowDropper, kDiskMissesCredit);
}
TEST_CASE("proof: mutant: the stop word read after the look whether the stream is stopped is caught") {
  check_caught(Mutant::kStopSeenLate, kStuck, "lost wake: a reader sleeps that was cancelled");
}
TEST_CASE("proof: mutant: a terminal published with a read in flight is caught") {
  check_caught(Mutant::kTerminalEarly, kReadInFlight, "reader: a chunk with other bytes");
}
TEST_CASE("proof: mutant: Unavailable without a last look is caught") {
  check_caught(Mutant::kNoLookAfterDeath, kDaemonDies, "reader: Unavailable before what was published");
}
TEST_CASE("proof: mutant: a command ring of four per stream is caught") {
  check_caught(Mutant::kSmallCommandRing, kCommands,
               "disk thread: violation: the command ring moved further than it is long");
}

// What could be left out, by the proof; it is kept because it costs nothing where it is.
TEST_CASE("proof: not missed: a reader's second look, and its seq_cst, which the kernel's wait has too") {
  for (const Scenario& scenario : {kOneReader, kThreshold}) {
    check_holds(scenario, Mutant::kNoReaderSecondLook);
    Scene scene(scenario);
    scene.world().words[scene.world().word("waiting")].weakened_stores = kRelease;
    CHECK_FALSE(scene.run().finding);
  }
}

}  // namespace
}  // namespace nvr::proof
