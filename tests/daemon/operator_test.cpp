// What the daemon keeps for those who run it: the stall log, the bounds of its log, the facts of a stream.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "daemon/log_limiter.h"
#include "daemon/stall_log.h"
#include "daemon/stream_facts.h"

namespace nvr::daemon {
namespace {

TEST_CASE("the stall log keeps the last of them, the oldest first") {
  StallLog log;
  const auto add = [&](std::uint64_t number) {
    log.add(
        {.operation = {.operation = shm::DiskOperation::kRead, .recording = number}, .error = 5, .peer = {}},
        static_cast<std::int64_t>(number));
  };
  const auto kept = [&] { return nlohmann::json::parse(log.json({})); };
  CHECK(kept()["operations"].empty());
  for (std::uint64_t i = 0; i < StallLog::kEntries + 10; ++i) add(i);
  const auto text = kept();
  CHECK(text["total"] == StallLog::kEntries + 10);
  REQUIRE(text["operations"].size() == StallLog::kEntries);
  for (std::uint64_t i = 0; i < StallLog::kEntries; ++i)
    CHECK(text["operations"][i]["recording"] == "0/" + std::to_string(i + 10));
  CHECK(text["operations"][0]["error"] == "Input/output error");
}

TEST_CASE("a kind of line is limited by itself, and what was left out is told once") {
  LogLimiter limiter;
  const auto kind = LogKind::kRefusal;
  const std::uint64_t start = 1000 * shm::kSecond;
  std::uint64_t said = 0;
  for (int i = 0; i < 1000; ++i) said += limiter.admits(kind, start) ? 1 : 0;
  CHECK(said == LogLimiter::kBurst);
  CHECK(limiter.admits(LogKind::kConnect, start));  // another kind
  CHECK_FALSE(limiter.take_due(start));
  CHECK(limiter.next_due_ns() == start + LogLimiter::kReportNs);
  const auto left_out = limiter.take_due(limiter.next_due_ns());
  REQUIRE(left_out);
  CHECK(left_out->kind == kind);
  CHECK(left_out->lines == 1000 - LogLimiter::kBurst);
  CHECK_FALSE(limiter.take_due(UINT64_MAX));
  CHECK(limiter.next_due_ns() == UINT64_MAX);
  // From then on a line each interval.
  said = 0;
  for (std::uint64_t ms = 1; ms <= 20'000; ++ms) said += limiter.admits(kind, start + ms * shm::kMillisecond);
  CHECK(said == 20 * shm::kSecond / LogLimiter::kIntervalNs);
}

TEST_CASE("a stream's wait is a new one when it has moved or waits for something else, and else goes on") {
  StreamFacts facts;
  CHECK(facts.snapshot().state == StreamState::kIdle);
  facts.opened({.recording = 7, .begin = 100, .end = 900}, 1000);
  facts.show(StreamState::kQueued, StreamWait::kQueue, 100, 1000);
  facts.show(StreamState::kReading, StreamWait::kDisk, 100, 2000);
  facts.show(StreamState::kReading, StreamWait::kDisk, 100, 3000);
  auto seen = facts.snapshot();
  CHECK(seen.state == StreamState::kReading);
  CHECK(seen.wait == StreamWait::kDisk);
  CHECK(seen.since_ns == 2000);
  CHECK(seen.position == 100);
  CHECK(seen.end == 900);
  facts.show(StreamState::kReading, StreamWait::kDisk, 200, 4000);
  seen = facts.snapshot();
  CHECK(seen.since_ns == 4000);
  CHECK(seen.position == 200);
  facts.opened({.flags = shm::kOpenToEnd, .recording = 8}, 5000);
  CHECK(facts.snapshot().end == StreamFacts::kToEnd);
}

}  // namespace
}  // namespace nvr::daemon
