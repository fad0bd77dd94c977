// How a spinning disk is shared: who is visited next, for how long, what steps in between; thousands of
// seeded disks.
#include <errno.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <deque>
#include <memory>
#include <vector>

#include "daemon/lanes.h"
#include "daemon/read_ahead.h"
#include "daemon/visit_plan.h"
#include "tests/support/environment.h"

namespace nvr::daemon {
namespace {

constexpr std::uint64_t kMs = shm::kMillisecond;
constexpr std::uint64_t kVisitNs = 60 * kMs;

struct Viewer : Visitor {
  explicit Viewer(int n) : name(n) {}
  int name;
};

// The next visit, all of it.
int visit(Visits& visits, std::uint64_t now_ns = 0) {
  Visitor* const next = visits.next(now_ns, kVisitNs);
  if (next == nullptr) return -1;
  Visits::advance(*next, Visits::bytes_left(*next), true);
  return static_cast<Viewer*>(next)->name;
}
std::vector<int> all_visits(Visits& visits) {
  std::vector<int> names;
  for (int name = visit(visits); name != -1; name = visit(visits)) names.push_back(name);
  return names;
}

TEST_CASE("visits: a batch in the order of its places, who comes meanwhile in the next") {
  Visits visits(Visits::Order::kSweep);
  std::deque<Viewer> viewers;
  for (int i = 0; i < 5; ++i) viewers.emplace_back(i);
  visits.want(viewers[0], {.position = 30, .bytes = 1});
  visits.want(viewers[1], {.position = 10, .bytes = 1});
  visits.want(viewers[2], {.position = 20, .bytes = 1});
  CHECK(visit(visits) == 1);
  visits.want(viewers[3], {.position = 15, .bytes = 1});
  visits.want(viewers[1], {.position = 11, .bytes = 1});
  CHECK(all_visits(visits) == std::vector<int>{2, 0, 1, 3});
  CHECK(visits.empty());
  CHECK(visits.count() == 5);
}

TEST_CASE("visits: first in, first out, when they are measured against that") {
  Visits visits(Visits::Order::kFifo);
  Viewer a(1);
  Viewer b(2);
  visits.want(a, {.position = 30, .bytes = 1});
  visits.want(b, {.position = 10, .deadline_ns = 1, .bytes = 1});
  CHECK(all_visits(visits) == std::vector<int>{1, 2});
}

TEST_CASE("visits: one goes on until its bytes are asked for, or there are no more") {
  Visits visits(Visits::Order::kSweep);
  Viewer a(1);
  Viewer b(2);
  visits.want(a, {.position = 1, .bytes = 3 * kSegmentBytes});
  visits.want(b, {.position = 2, .bytes = 3 * kSegmentBytes});
  for (int i = 0; i < 3; ++i) {
    REQUIRE(visits.next(0, kVisitNs) == &a);
    Visits::advance(a, kSegmentBytes, true);
  }
  REQUIRE(visits.next(0, kVisitNs) == &b);
  Visits::advance(b, kSegmentBytes, false);
  CHECK(visits.next(0, kVisitNs) == nullptr);
}

TEST_CASE("visits: a stream that is removed or destroyed is not visited, not even in the middle of a visit") {
  Visits visits(Visits::Order::kSweep);
  auto gone = std::make_unique<Viewer>(1);
  Viewer stays(2);
  visits.want(*gone, {.position = 1, .bytes = 2});
  visits.want(stays, {.position = 2, .bytes = 2});
  REQUIRE(visits.next(0, kVisitNs) == gone.get());
  gone.reset();
  CHECK(all_visits(visits) == std::vector<int>{2});
}

TEST_CASE("visits: who is about to run dry goes first") {
  Visits visits(Visits::Order::kSweep);
  Viewer a(1);
  Viewer dry(2);
  Viewer later(3);
  visits.want(a, {.position = 1, .bytes = 1});
  visits.want(dry, {.position = 9, .deadline_ns = 2 * kVisitNs, .bytes = 1});
  visits.want(later, {.position = 8, .deadline_ns = 1000 * kVisitNs, .bytes = 1});
  CHECK(all_visits(visits) == std::vector<int>{2, 1, 3});
}

TEST_CASE("visits: exports never delay live by more than one visit, and are not starved by it") {
  Visits visits(Visits::Order::kSweep);
  std::deque<Viewer> exports;
  for (int i = 0; i < 10; ++i) exports.emplace_back(i);
  for (Viewer& each : exports) visits.want(each, {.priority = Priority::kExport, .bytes = 1});
  Viewer live(100);
  std::vector<int> served;
  int waited = 0;
  for (int i = 0; i < 500; ++i) {
    if (!live.wants_visit()) {
      visits.want(live, {.priority = Priority::kLive, .bytes = 1});
      waited = 0;
    }
    const int name = visit(visits);
    served.push_back(name);
    if (name == 100) continue;
    REQUIRE(++waited <= 1);
    visits.want(exports[static_cast<std::size_t>(name)], {.priority = Priority::kExport, .bytes = 1});
  }
  for (const Viewer& each : exports) CHECK(std::ranges::count(served, each.name) == 10);
  CHECK(std::ranges::count(served, 100) == 400);
}

TEST_CASE("visits: a class that wanted nothing for a while has saved up no turns") {
  Visits visits(Visits::Order::kSweep);
  Viewer live(1);
  Viewer exported(2);
  const auto both = {std::pair(&live, Priority::kLive), std::pair(&exported, Priority::kExport)};
  for (int i = 0; i < 100; ++i) {
    visits.want(live, {.priority = Priority::kLive, .bytes = 1});
    REQUIRE(visit(visits) == 1);
  }
  std::vector<int> served;
  for (int i = 0; i < 10; ++i) {
    for (const auto& [viewer, priority] : both)
      if (!viewer->wants_visit()) visits.want(*viewer, {.priority = priority, .bytes = 1});
    served.push_back(visit(visits));
  }
  CHECK(std::ranges::count(served, 1) == 8);
}

TEST_CASE("visits: one ends also when more is asked for than is left of it") {
  Visits visits(Visits::Order::kSweep);
  Viewer a(1);
  visits.want(a, {.bytes = 3});
  REQUIRE(visits.next(0, kVisitNs) == &a);
  Visits::advance(a, 2, true);
  Visits::advance(a, 2, true);
  CHECK_FALSE(a.wants_visit());
}

TEST_CASE("visit plan: what all have ahead is bounded, and at the bound a visit is one segment") {
  VisitPlan plan{.visits = Visits(Visits::Order::kSweep)};
  CHECK(plan.visit_bytes() == plan.model.visit_bytes());
  for (const std::uint64_t beyond : {0U, 1U}) {
    plan.ahead_bytes = plan.most_ahead_bytes + beyond;
    CHECK(plan.visit_bytes() == kSegmentBytes);
  }
}

TEST_CASE("disk model: seek time and bandwidth are learnt, and give the length of a visit") {
  DiskModel model;
  CHECK(model.visit_bytes() == 15 * kSegmentBytes);  // of an ordinary disk, until more is known
  for (int i = 0; i < 200; ++i) {
    model.record(kSegmentBytes, 2 * kMs + kMs * 8, true);  // 250 MB/s and 8 ms
    for (int j = 0; j < 7; ++j) model.record(kSegmentBytes, 2 * kMs, false);
    model.record(kSegmentBytes, 10'000, false);  // was in memory
  }
  CHECK(model.bytes_per_s() == Approx(262e6).epsilon(0.02));
  CHECK(model.positioning_ns() == Approx(8e6).epsilon(0.02));
  CHECK(model.efficiency() == Approx(16.0 / 24).epsilon(0.05));
  const auto bytes = static_cast<double>(model.visit_bytes());
  CHECK(bytes / (bytes + 262e6 * 0.008) >= DiskModel::kTargetEfficiency - 0.01);
  for (int i = 0; i < 1000; ++i) model.record(kSegmentBytes, 2 * kMs + 50'000, true);
  CHECK(model.visit_bytes() == kMinVisitBytes);
}

TEST_CASE("lanes: two segments and one new stream at a time, and what is stuck does not count") {
  Lanes lanes(0, 500 * kMs, true);
  std::deque<Operation> operations(4);
  CHECK(lanes.has_room_for_segment(0));
  for (int i : {0, 1}) {
    operations[static_cast<std::size_t>(i)].submitted_ns = 0;
    lanes.enter(operations[static_cast<std::size_t>(i)], Operation::Lane::kSegment);
  }
  CHECK_FALSE(lanes.has_room_for_segment(1));
  CHECK(lanes.has_room_for_segment(500 * kMs));
}

TEST_CASE("lanes: the time for which the disk hung is charged to nobody") {
  Lanes lanes(50, 500 * kMs, true);
  DiskModel model;
  const auto hang = [&](Operation::Lane lane, std::uint64_t begin_ns) {
    Operation operation;
    operation.kind = Operation::Kind::kOpen;
    operation.submitted_ns = begin_ns;
    lanes.enter(operation, lane);
    lanes.leave(operation, begin_ns + 60'000 * kMs, model);
  };
  hang(Operation::Lane::kSegment, 0);
  CHECK_FALSE(lanes.has_room_for_segment(60'000 * kMs));
  CHECK(lanes.has_room_for_segment(60'500 * kMs));
  hang(Operation::Lane::kNew, 70'000 * kMs);
  CHECK_FALSE(lanes.has_room_for_new(130'000 * kMs, false, true));
  CHECK(lanes.has_room_for_new(130'500 * kMs, false, true));
}

TEST_CASE(
    "lanes: a new stream goes on to its first chunk, segments wait meanwhile, and then others have the "
    "time") {
  Lanes lanes(0, 500 * kMs, true);
  DiskModel model;
  const auto step = [&](Operation::Kind kind, std::uint64_t begin_ns, std::uint64_t end_ns) {
    Operation operation;
    operation.kind = kind;
    operation.submitted_ns = begin_ns;
    lanes.enter(operation, Operation::Lane::kNew);
    CHECK_FALSE(lanes.has_room_for_segment(begin_ns));
    CHECK_FALSE(lanes.has_room_for_new(begin_ns, true, false));
    CHECK(lanes.has_room_for_segment(begin_ns + 500 * kMs));  // it is stuck: all others go on
    lanes.leave(operation, end_ns, model);
  };
  REQUIRE(lanes.has_room_for_new(10 * kMs, false, true));
  step(Operation::Kind::kOpen, 10 * kMs, 30 * kMs);
  // It took 20 ms: as much is for the others first, if there are any, but for this one.
  CHECK_FALSE(lanes.has_room_for_new(49 * kMs, false, true));
  CHECK(lanes.has_room_for_new(49 * kMs, false, false));
  CHECK(lanes.has_room_for_new(50 * kMs, false, true));
  REQUIRE(lanes.has_room_for_new(30 * kMs, true, true));
  step(Operation::Kind::kPrefetch, 30 * kMs, 45 * kMs);
  CHECK(lanes.has_room_for_segment(45 * kMs));
  CHECK_FALSE(lanes.has_room_for_new(79 * kMs, false, true));
  CHECK(lanes.has_room_for_new(80 * kMs, false, true));
  step(Operation::Kind::kOpen, 80 * kMs, 90 * kMs);  // the next new stream: only its own time counts
  CHECK(lanes.has_room_for_new(100 * kMs, false, true));
}

TEST_CASE("lanes: the model learns what each segment took once the disk could begin with it") {
  Lanes lanes(0, 500 * kMs, true);
  DiskModel model;
  SampleFile file;
  SampleFile other;
  // One is on the disk while the next waits for it; each takes 2 ms.
  std::deque<Operation> segments(100);
  for (std::uint64_t i = 0; i < segments.size(); ++i) {
    segments[i].submitted_ns = i == 0 ? 0 : (i - 1) * 2 * kMs;
    segments[i].file = &file;
    segments[i].offset = i * kSegmentBytes;
    segments[i].length = segments[i].done = kSegmentBytes;
    lanes.enter(segments[i], Operation::Lane::kSegment);
    CHECK(segments[i].sought == (i == 0));
    if (i > 0) lanes.leave(segments[i - 1], i * 2 * kMs, model);
  }
  CHECK(model.bytes_per_s() == Approx(kSegmentBytes / 2e-3).epsilon(0.01));
  const std::uint64_t learnt = model.positioning_ns();
  // A segment that was stuck teaches the model nothing about the healthy disk.
  Operation& stuck = segments[0];
  stuck.file = &other;
  stuck.offset = segments.size() * kSegmentBytes;
  stuck.submitted_ns = 1000 * kMs;
  lanes.enter(stuck, Operation::Lane::kSegment);
  CHECK(stuck.sought);
  lanes.leave(stuck, 1500 * kMs, model);
  CHECK(model.positioning_ns() == learnt);
}

TEST_CASE("lanes: segments wait for nobody when the visits are first in, first out") {
  Lanes lanes(0, 500 * kMs, false);
  Operation operation;
  operation.kind = Operation::Kind::kOpen;
  operation.submitted_ns = 10 * kMs;
  lanes.enter(operation, Operation::Lane::kNew);
  CHECK(lanes.has_room_for_segment(11 * kMs));
}

TEST_CASE("lanes: with a reserve the disk is left alone after each segment") {
  Lanes lanes(25, 500 * kMs, true);
  DiskModel model;
  Operation operation;
  operation.submitted_ns = 100 * kMs;
  lanes.enter(operation, Operation::Lane::kSegment);
  CHECK_FALSE(lanes.has_room_for_segment(101 * kMs));
  lanes.leave(operation, 130 * kMs, model);
  CHECK_FALSE(lanes.has_room_for_segment(139 * kMs));
  CHECK(lanes.has_room_for_segment(140 * kMs));
}

TEST_CASE("read-ahead: segments in order, as far as they have come, and a reader's pace") {
  OperationPool pool(4);
  ReadAhead ahead;
  ahead.start(100, 100 + 3 * kSegmentBytes, 1000 * kMs);
  CHECK_FALSE(ahead.is_needed());
  ahead.miss(100);
  Operation& first = pool.take();
  Operation& second = pool.take();
  ahead.prepare(first, kSegmentBytes);
  ahead.prepare(second, kSegmentBytes);
  CHECK(ahead.asked_until() == 100 + 2 * kSegmentBytes);
  second.done = second.length;
  ahead.on_finished(second, pool);
  CHECK(ahead.until() == 100);
  first.done = first.length;
  ahead.on_finished(first, pool);
  CHECK(ahead.until() == 100 + 2 * kSegmentBytes);
  CHECK(pool.in_use() == 0);
  // Half a second with a full window of the one that it took to use up 1,000 bytes.
  ahead.set_reader_waits(true, 1000 * kMs);
  ahead.set_reader_waits(false, 1600 * kMs);
  CHECK(ahead.deadline_ns(1100, 5000, 2000 * kMs) == 7000 * kMs);
  CHECK(ahead.deadline_ns(2100, 5000, 3000 * kMs) == UINT64_MAX);  // it took all it could get
  Operation& bad = pool.take();
  ahead.prepare(bad, kSegmentBytes);
  bad.done = 4096;
  bad.error = EIO;
  ahead.on_finished(bad, pool);
  CHECK(ahead.has_failed());
  CHECK(ahead.until() == 100 + 2 * kSegmentBytes + 4096);
  CHECK_FALSE(ahead.has_more());
}

TEST_CASE("read-ahead: nothing is there behind a failure, and the next stretch begins anew") {
  OperationPool pool(4);
  ReadAhead ahead;
  ahead.start(0, 8 * kSegmentBytes, 0);
  ahead.miss(0);
  Operation& bad = pool.take();
  Operation& good = pool.take();
  ahead.prepare(bad, kSegmentBytes);
  ahead.prepare(good, kSegmentBytes);
  bad.done = 4096;
  good.done = good.length;
  ahead.on_finished(good, pool);
  ahead.on_finished(bad, pool);
  CHECK(ahead.has_failed());
  CHECK(ahead.until() == 4096);
  CHECK(pool.in_use() == 0);
  ahead.set_reader_waits(true, 10 * kMs);
  ahead.start(0, 8 * kSegmentBytes, 1000 * kMs);
  CHECK_FALSE(ahead.has_failed());
  CHECK_FALSE(ahead.is_needed());
  CHECK(ahead.has_more());
  CHECK(ahead.deadline_ns(1000, 5000, 2000 * kMs) == UINT64_MAX);  // it has not waited since
}

TEST_CASE("read ahead: a reader of whom nothing is known is presumed to show what it has had, at first") {
  OperationPool pool(2);
  ReadAhead ahead;
  ahead.start(100, 100 + 100'000'000, 1000 * kMs);
  ahead.miss(100);
  CHECK(ahead.presumed_deadline_ns(100) == 1000 * kMs);
  Operation& first = pool.take();
  ahead.prepare(first, 2'000'000);
  CHECK(ahead.presumed_deadline_ns(100) == 3000 * kMs);
  CHECK(ahead.presumed_deadline_ns(3'000'100) == 4000 * kMs);  // read by itself, past the page cache
  ahead.prepare(pool.take(), 4'000'000);
  CHECK(ahead.presumed_deadline_ns(100) == UINT64_MAX);
}

// A disk with a head, and streams at random that come, read at their pace or without end, and go.
std::string problem_of_seed(std::uint64_t seed) {
  test::Random random(seed);
  const auto upto = [&](std::uint64_t most) {
    return std::uniform_int_distribution<std::uint64_t>(0, most)(random);
  };
  struct Reader : Visitor {
    Priority priority = Priority::kPlayback;
    std::uint64_t position = 0;
    std::uint64_t wanted_at = 0;  // in visits
    std::uint64_t deadline_ns = UINT64_MAX;
    std::uint64_t visits = 0;
    bool open = true;
  };
  Visits visits(Visits::Order::kSweep);
  std::deque<Reader> readers(1 + upto(40));
  for (Reader& reader : readers) {
    reader.priority = static_cast<Priority>(upto(3));
    reader.position = upto(1'000'000);
  }
  std::uint64_t now_ns = 0;
  std::uint64_t done = 0;
  for (int step = 0; step < 2000; ++step) {
    for (Reader& reader : readers) {
      if (reader.open && !reader.wants_visit() && upto(3) == 0) {
        // Feasible: time enough for everybody's visit.
        const bool is_paced = upto(2) == 0;
        reader.deadline_ns = is_paced ? now_ns + (readers.size() + 3 + upto(50)) * kVisitNs : UINT64_MAX;
        reader.wanted_at = done;
        visits.want(reader, {.priority = reader.priority,
                             .position = reader.position,
                             .deadline_ns = reader.deadline_ns,
                             .bytes = kMinVisitBytes});
      }
      if (upto(500) == 0) {
        Visits::remove(reader);
        reader.open = !reader.open;
      }
    }
    Visitor* const next = visits.next(now_ns, kVisitNs);
    if (next == nullptr) continue;
    auto& reader = static_cast<Reader&>(*next);
    if (!reader.open) return "a visit for a closed stream";
    if (visits.next(now_ns, kVisitNs) != next) return "a visit that is under way was left";
    while (reader.wants_visit()) {
      if (Visits::bytes_left(reader) == 0 || Visits::bytes_left(reader) > kMinVisitBytes) return "length";
      Visits::advance(reader, kSegmentBytes, true);
    }
    now_ns += kVisitNs;
    ++done;
    ++reader.visits;
    if (reader.deadline_ns < now_ns) return "a deadline that could be met was missed";
    // All of the classes have their turn within 15 visits of one class, and a batch is no longer than all
    // streams; those who are about to run dry come before.
    if (done - reader.wanted_at > 15 * 3 * readers.size()) return "a stream was starved";
  }
  return {};
}

TEST_CASE("visits: thousands of seeded disks") {
  const std::uint64_t first = test::test_random()();
  const int count = test::scaled(3000, 300);
  for (int i = 0; i < count; ++i) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(i);
    const std::string problem = problem_of_seed(seed);
    CAPTURE(seed);
    REQUIRE(problem == "");
  }
}

}  // namespace
}  // namespace nvr::daemon
