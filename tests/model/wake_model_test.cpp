// Every interleaving of the wake protocol in small worlds: nobody sleeps who should be awake, nobody runs in
// circles, every chunk arrives once and whole, every stream ends once. And the model is worth something: each
// mutant, which breaks one thing that the protocol stands on, is caught.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include "tests/model/explorer.h"
#include "tests/model/world.h"

namespace nvr::model {
namespace {

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
                                  .chunks = 3,
                                  .generations = 2,
                                  .keep = 2,
                                  .detaches = true};
constexpr Scenario kDropper = {
    .name = "chunks dropped by another thread", .threshold = 2, .chunks = 2, .helper_drops = true};
constexpr Scenario kSlowDropper = {.name = "a chunk held, the others dropped by another thread",
                                   .threshold = 2,
                                   .keep = 1,
                                   .attaches = false,
                                   .helper_drops = true,
                                   .detaches = true};
constexpr Scenario kCancelled = {
    .name = "cancelled by another thread", .chunks = 2, .attaches = false, .cancels = true};
constexpr Scenario kReopened = {.name = "cancelled by another thread, then opened again",
                                .chunks = 1,
                                .generations = 2,
                                .attaches = false,
                                .cancels = true};
constexpr Scenario kStuck = {.name = "cancelled by another thread while the disk is stuck",
                             .attaches = false,
                             .cancels = true,
                             .disk_is_stuck = true};
constexpr Scenario kDestroyed = {.name = "streams destroyed after any chunk",
                                 .chunks = 2,
                                 .generations = 3,
                                 .keep = 1,
                                 .attaches = false,
                                 .abandons = true};
constexpr Scenario kReadFails = {
    .name = "a read fails", .window = 4, .threshold = 2, .chunks = 4, .fails_at = 3};
constexpr Scenario kTwoReaders = {
    .name = "two readers on two streams", .streams = 2, .chunks = 1, .attaches = false};
constexpr Scenario kEventLoop = {
    .name = "an event loop", .threshold = 2, .chunks = 4, .generations = 2, .keep = 1, .event_loop = true};
constexpr Scenario kEventLoopShownEarly = {.name = "an event loop, chunks seen before it is told of them",
                                           .threshold = 2,
                                           .chunks = 4,
                                           .keep = 1,
                                           .shows_early = true,
                                           .event_loop = true};
constexpr Scenario kEventLoopHeld = {.name = "an event loop, the whole window held",
                                     .threshold = 2,
                                     .chunks = 4,
                                     .keep = 2,
                                     .event_loop = true};
constexpr Scenario kEventLoopDropper = {.name = "an event loop, chunks dropped by another thread",
                                        .threshold = 2,
                                        .chunks = 2,
                                        .attaches = false,
                                        .event_loop = true,
                                        .helper_drops = true};
constexpr Scenario kEventLoopTwo = {
    .name = "an event loop over two streams", .streams = 2, .chunks = 1, .event_loop = true};
constexpr Scenario kEventLoopDestroyed = {.name = "an event loop, streams destroyed after any chunk",
                                          .chunks = 1,
                                          .generations = 2,
                                          .attaches = false,
                                          .event_loop = true,
                                          .abandons = true};
constexpr Scenario kEventLoopCancelled = {.name = "an event loop, cancelled by another thread",
                                          .chunks = 1,
                                          .attaches = false,
                                          .event_loop = true,
                                          .cancels = true};
constexpr Scenario kDaemonDies = {
    .name = "the daemon dies under a reader", .generations = 2, .daemon_dies = true};
constexpr Scenario kDaemonDiesCancelled = {.name = "the daemon dies under a reader that is cancelled",
                                           .chunks = 1,
                                           .attaches = false,
                                           .cancels = true,
                                           .daemon_dies = true};
constexpr Scenario kDaemonDiesEventLoop = {
    .name = "the daemon dies under an event loop", .event_loop = true, .daemon_dies = true};
constexpr Scenario kClientDies = {
    .name = "the client dies", .threshold = 2, .generations = 2, .keep = 1, .client_dies = true};

std::string to_text(const Finding& finding) {
  std::string text = finding.what + ", after";
  for (const std::string& step : finding.way) text += "\n    " + step;
  return text;
}

// No finding, and every schedule ends.
void check_holds(const Scenario& scenario, Mutant mutant = Mutant::kNone) {
  const Model model(scenario, mutant);
  const Exploration explored = Explorer(model).run();
  std::printf("model: %s: %zu states, %zu steps, %zu MiB\n", scenario.name, explored.states, explored.steps,
              explored.bytes >> 20);
  INFO(scenario.name << ": " << (explored.finding ? to_text(*explored.finding) : ""));
  REQUIRE_FALSE(explored.finding);
  CHECK(explored.every_schedule_ends);
}

void check_caught(Mutant mutant, const Scenario& scenario, std::string_view what) {
  const Model model(scenario, mutant);
  const Exploration explored = Explorer(model).run();
  INFO(scenario.name << ": " << explored.states << " states");
  REQUIRE(explored.finding);
  std::printf("model: caught in %zu states: %s, %zu steps from the start\n", explored.states,
              explored.finding->what.c_str(), explored.finding->way.size());
  CHECK(explored.finding->what == what);
}

constexpr std::string_view kReaderSleeps = "lost wake: a reader sleeps, and something was published for it";
constexpr std::string_view kLoopSleeps =
    "lost wake: the event loop sleeps, and something was published for it";
constexpr std::string_view kDiskMissesCommand = "lost wake: the disk thread sleeps, and a command is there";
constexpr std::string_view kDiskMissesCredit =
    "lost wake: the disk thread sleeps, and the credit that it waits for is there";

// ---- The protocol as it is

TEST_CASE("model: it holds for a blocked reader") {
  for (const Scenario& scenario : {kOneReader, kThreshold, kShownEarly, kWindowHeld, kReadFails})
    check_holds(scenario);
}
TEST_CASE("model: it holds when chunks are dropped by another thread") {
  for (const Scenario& scenario : {kDropper, kSlowDropper}) check_holds(scenario);
}
TEST_CASE("model: it holds when another thread cancels") {
  for (const Scenario& scenario : {kCancelled, kReopened, kStuck}) check_holds(scenario);
}
TEST_CASE("model: it holds when streams are destroyed early") {
  for (const Scenario& scenario : {kDestroyed, kEventLoopDestroyed}) check_holds(scenario);
}
TEST_CASE("model: it holds for two readers") {
  check_holds(kTwoReaders);
}
TEST_CASE("model: it holds for an event loop") {
  for (const Scenario& scenario : {kEventLoop, kEventLoopShownEarly, kEventLoopHeld, kEventLoopDropper,
                                   kEventLoopTwo, kEventLoopCancelled})
    check_holds(scenario);
}
TEST_CASE("model: it holds when the daemon dies") {
  for (const Scenario& scenario : {kDaemonDies, kDaemonDiesCancelled, kDaemonDiesEventLoop})
    check_holds(scenario);
}
TEST_CASE("model: it holds when the client dies") {
  check_holds(kClientDies);
}

// ---- What it stands on

TEST_CASE("model: caught: daemon's head store release only") {
  check_caught(Mutant::kHeadRelease, kOneReader, kReaderSleeps);
  check_caught(Mutant::kHeadRelease, kEventLoop, kLoopSleeps);
}
TEST_CASE("model: caught: need_doorbell store release only") {
  check_caught(Mutant::kNeedDoorbellRelease, kOneReader, kDiskMissesCommand);
}
TEST_CASE("model: caught: command tail store release only") {
  check_caught(Mutant::kCommandRelease, kOneReader, kDiskMissesCommand);
}
TEST_CASE("model: caught: return tail store release only") {
  check_caught(Mutant::kReturnRelease, kThreshold, kDiskMissesCredit);
  check_caught(Mutant::kReturnRelease, kEventLoop, kDiskMissesCredit);
}
TEST_CASE("model: caught: no second look before epoll") {
  check_caught(Mutant::kNoSecondLook, kOneReader, kDiskMissesCommand);
}
TEST_CASE("model: caught: eventfd drained after the look") {
  check_caught(Mutant::kDrainAfterLook, kOneReader, kDiskMissesCommand);
}
TEST_CASE("model: caught: waiting cleared between re-check and sleep") {
  check_caught(Mutant::kWaitingCleared, kOneReader, kReaderSleeps);
}
TEST_CASE("model: caught: nobody is woken for what was there to be seen before") {
  check_caught(Mutant::kShownIsPublished, kShownEarly, kReaderSleeps);
  check_caught(Mutant::kShownIsPublished, kEventLoopShownEarly, kLoopSleeps);
}
TEST_CASE("model: caught: the kernel's value compare removed") {
  check_caught(Mutant::kNoValueCompare, kOneReader, kReaderSleeps);
}

// Beyond the words of the rings.
TEST_CASE("model: caught: a futex wake that came to nobody counts") {
  check_caught(Mutant::kVainRingCounts, kOneReader, kReaderSleeps);
}
TEST_CASE("model: caught: want_byte store release only") {
  check_caught(Mutant::kWantByteRelease, kEventLoop, kLoopSleeps);
}
TEST_CASE("model: caught: the socket drained after want_byte was raised") {
  check_caught(Mutant::kDispatchAnnouncesFirst, kEventLoop, kLoopSleeps);
}
TEST_CASE("model: caught: each sleep announced with the same value") {
  check_caught(Mutant::kNoNewEpoch, kOneReader, kDiskMissesCredit);
}
TEST_CASE("model: caught: no ring for returned credit before the sleep") {
  check_caught(Mutant::kNoRingForCredit, kThreshold, kDiskMissesCredit);
  check_caught(Mutant::kNoRingForCredit, kEventLoop, kDiskMissesCredit);
}
TEST_CASE("model: caught: is_reader_waiting set after the credit was looked at") {
  check_caught(Mutant::kWaitingSetLate, kSlowDropper, kDiskMissesCredit);
}
TEST_CASE("model: caught: the stop word read after the look whether the stream is stopped") {
  check_caught(Mutant::kStopSeenLate, kStuck, "lost wake: a reader sleeps that was cancelled");
}
TEST_CASE("model: caught: a terminal published with a read in flight") {
  check_caught(Mutant::kTerminalEarly, kDestroyed, "a chunk with other bytes");
}
TEST_CASE("model: caught: Unavailable without a last look") {
  check_caught(Mutant::kNoLookAfterDeath, kDaemonDies, "Unavailable before what was published");
}

// What could be left out, by the model; it is kept because it costs nothing where it is.
TEST_CASE("model: not missed: seq_cst and second look of a reader, which the kernel's wait has too") {
  for (const Scenario& scenario : {kOneReader, kThreshold, kDropper, kStuck}) {
    check_holds(scenario, Mutant::kWaitingRelease);
    check_holds(scenario, Mutant::kNoClientSecondLook);
  }
}
TEST_CASE("model: not missed: the disk thread's retirement, as each sleep is announced anew") {
  for (const Scenario& scenario : {kOneReader, kThreshold, kDropper, kEventLoop})
    check_holds(scenario, Mutant::kNoDiskRetire);
}

// ---- The model and the sources

TEST_CASE("model: the code that its steps stand for is there") {
  for (int i = 0; i < static_cast<int>(Step::kSteps); ++i) {
    const SourcePlace& place = place_of(static_cast<Step>(i));
    if (*place.file == '\0') continue;
    std::ifstream stream(std::string(NVR_SOURCE_DIR "/") + place.file);
    const std::string source((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    INFO(to_string(place.step));
    CHECK(source.find(place.code) != std::string::npos);
  }
}

}  // namespace
}  // namespace nvr::model
