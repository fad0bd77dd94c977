// The disk thread's work under a simulated engine: thousands of seeds over scheduler, streams, credit,
// cancellation and connection ends, and directed cases of the conformance suite. Everything that happens in a
// run comes from its seed; a run that fails prints it, and NVR_SIMULATION_SEED=N replays that one.
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <climits>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "daemon/disk_service.h"
#include "daemon/streams_report.h"
#include "tests/simulation/simulated_client.h"
#include "tests/simulation/simulated_engine.h"
#include "tests/support/environment.h"
#include "tests/support/wait.h"

namespace nvr::test {
namespace {

using shm::kSlotBytes;

// A daemon's disk side with its clients.
class Run {
 public:
  Run(std::uint64_t seed, std::uint32_t depth, Faults faults, daemon::DiskService::Setup setup = {})
      : random_(seed),
        engine_(random_, depth, faults, files_),
        in_flight_(daemon::kMaxOperations),
        service_(engine_, statistics_, in_flight_, setup,
                 [this](const daemon::FromDisk& message) { hear(message); }) {}

  struct Member {
    std::unique_ptr<daemon::Connection> connection;
    std::unique_ptr<SimulatedClient> client;
    bool is_leaving = false;
  };

  SimulatedClient& add_client(shm::Geometry geometry, Habits habits = {}, std::uint32_t uid = 0) {
    auto connection = daemon::Connection::create(next_id_++, {.uid = uid}, geometry, 1, -1);
    if (!connection) throw TestFailure(connection.error().message);
    auto client = std::make_unique<SimulatedClient>(random_, **connection, files_, habits);
    service_.attach(**connection);
    members_.push_back({.connection = std::move(*connection), .client = std::move(client)});
    return *members_.back().client;
  }

  // The client has died: its connection ends.
  void detach(std::size_t member) {
    members_[member].is_leaving = true;
    service_.detach(*members_[member].connection);
    sweep();
  }

  // One step of one of the two sides.
  void step() {
    switch (upto(random_, 5)) {
      case 0:
        service_.take_commands();
        break;
      case 1:
        service_.take_credit();
        break;
      case 2:
        service_.submit_operation();
        break;
      case 3:
        service_.reap_completions();
        break;
      default:
        if (members_.empty()) return;
        Member& member = members_[upto(random_, members_.size() - 1)];
        if (!member.is_leaving) member.client->step();
    }
    sweep();
  }
  // The daemon's side until it has submitted so many reads in all, and not waited for the last of them.
  void settle_until_read(std::uint64_t reads) {
    for (int i = 0; i < 10'000 && engine_.reads() < reads; ++i) {
      service_.take_commands();
      service_.take_credit();
      service_.submit_operation();
      if (engine_.reads() < reads) service_.reap_completions();
    }
    if (engine_.reads() != reads) throw TestFailure("there is no such read");
  }
  // The daemon's side until it has nothing to do but wait for what is stuck.
  void settle() {
    for (int idle = 0; idle < 20; ++idle) {
      bool busy = service_.take_commands();
      busy |= service_.take_credit();
      busy |= service_.submit_operation();
      busy |= service_.reap_completions();
      sweep();
      if (busy) idle = 0;
    }
  }

  [[nodiscard]] std::string problem() const {
    if (!problem_.empty()) return problem_;
    if (!engine_.problem().empty()) return "engine: " + engine_.problem();
    for (const Member& member : members_)
      if (!member.client->problem().empty()) return "client: " + member.client->problem();
    return {};
  }
  // With every client idle: what is left over. Empty if nothing.
  [[nodiscard]] std::string leftovers() const {
    if (engine_.in_flight() != 0) return "operations in flight";
    if (service_.operations_in_use() != 0) return "operations that nobody gave back";
    if (engine_.open_files() != 0) return "open files";
    if (statistics_.streams_open.value() != 0) return "open streams";
    if (statistics_.streams_waiting.value() != 0) return "waiting streams";
    if (statistics_.quarantined_bytes.value() != 0) return "quarantined bytes";
    if (in_flight_.count() != 0) return "entries for the watchdog";
    return {};
  }
  // Does any stream, all of them idle, lack a slot of its window?
  [[nodiscard]] std::string problem_with_windows() {
    files_[kGood].size = shm::kMaxSlots * kSlotBytes;
    std::uint64_t held = 0;
    std::uint64_t slots = 0;
    for (const Member& member : members_) {
      const shm::Geometry& geometry = member.connection->geometry();
      for (std::uint32_t stream = 0; stream < geometry.streams; ++stream) {
        member.client->open_range(stream, kGood, 0, geometry.slots * kSlotBytes);
        for (int i = 0; i < 1000 && member.client->is_open(stream); ++i) {
          settle();
          member.client->take_all(stream);
        }
        const auto end = member.client->last_terminal(stream);
        const bool refused = end && end->detail == shm::Detail::kOpenFailed;  // a fault of the run
        if (!refused && member.client->held(stream) != geometry.slots) return "a slot was lost";
        held += member.client->held(stream);
      }
      slots += std::uint64_t{geometry.streams} * geometry.slots;
    }
    if (statistics_.slots_lent.value() != held) return "the statistics lend slots that are held by nobody";
    if (statistics_.slots.value() != slots) return "the statistics have slots that are nobody's";
    return problem();
  }
  [[nodiscard]] bool all_idle() const {
    for (const Member& member : members_)
      if (member.is_leaving || !member.client->is_idle()) return false;
    return true;
  }

  Random& random() { return random_; }
  std::map<std::uint64_t, SimulatedFile>& files() { return files_; }
  SimulatedEngine& engine() { return engine_; }
  daemon::DiskService& service() { return service_; }
  const daemon::DiskStatistics& statistics() const { return statistics_; }
  std::vector<Member>& members() { return members_; }
  const std::vector<daemon::OperationReport>& reports() const { return reports_; }

 private:
  static constexpr std::uint64_t kGood = 100;  // a recording that all of can be read

  void hear(const daemon::FromDisk& message) {
    if (const auto* violation = std::get_if<daemon::Violation>(&message))
      problem_ = std::string("violation: ") + violation->offence;
    if (const auto* report = std::get_if<daemon::OperationReport>(&message)) reports_.push_back(*report);
    if (const auto* detached = std::get_if<daemon::Detached>(&message))
      detached_.push_back(detached->connection);
  }
  // Destroys what has been let go of, as the control thread does; by then nothing may write to its memory.
  void sweep() {
    for (daemon::Connection* const connection : detached_) {
      const auto& map = connection->read_segment().mapping();
      if (engine_.writes_to(map.data(), map.data() + map.size()))
        problem_ = "let go of memory that is written to";
      const auto found = std::ranges::find_if(
          members_, [&](const Member& member) { return member.connection.get() == connection; });
      if (found == members_.end() || !found->is_leaving)
        problem_ = "let go of a connection that was not leaving";
      else
        members_.erase(found);
    }
    detached_.clear();
  }

  Random random_;
  std::map<std::uint64_t, SimulatedFile> files_;
  SimulatedEngine engine_;
  daemon::DiskStatistics statistics_;
  daemon::InFlight in_flight_;
  std::vector<daemon::Connection*> detached_;
  std::vector<daemon::OperationReport> reports_;
  daemon::DiskService service_;
  std::vector<Member> members_;  // the service outlives them
  std::uint32_t next_id_ = 1;
  std::string problem_;
};

// Everything at random. What went wrong; empty if nothing.
std::string problem_of_seed(std::uint64_t seed, std::uint64_t& chunks) {
  Random choice(seed ^ 0x5eed);
  const Faults faults = {.short_read = happens(choice, 0.5) ? 0.3 : 0,
                         .interrupted = happens(choice, 0.3) ? 0.1 : 0,
                         .again = happens(choice, 0.3) ? 0.3 : 0,
                         .never = happens(choice, 0.4) ? 0.03 : 0,
                         .open_fails = happens(choice, 0.3) ? 0.2 : 0,
                         .longest_delay = static_cast<std::uint32_t>(upto(choice, 6))};
  const daemon::DiskService::Setup setup = {.is_rotational = happens(choice, 0.5),
                                            .fifo = happens(choice, 0.2)};
  // What the plan has on the disk does not count for the depth.
  Run run(seed, static_cast<std::uint32_t>(1 + upto(choice, 7)), faults, setup);
  for (std::uint64_t id = 1; id <= 1 + upto(choice, 4); ++id) {
    SimulatedFile& file = run.files()[id];
    file.size = 1 + upto(choice, 20 * kSlotBytes);
    if (happens(choice, 0.2)) file.bad_at = upto(choice, file.size - 1);
    if (happens(choice, 0.5)) file.error = ETIMEDOUT;
    if (file.bad_at != UINT64_MAX && happens(choice, 0.5)) {
      file.block = 512;
      file.bad_at = file.bad_at / file.block * file.block;
    }
  }
  const auto geometry = [&]() -> shm::Geometry {
    return {.streams = static_cast<std::uint32_t>(1 + upto(choice, 3)),
            .slots = std::uint32_t{1} << (1 + upto(choice, 2))};
  };
  // Every other run's clients hold chunks for so long that most come back in a later generation.
  const Habits habits = {.give_back = happens(choice, 0.5) ? 0.4 : 0.03};
  for (std::uint64_t i = 0; i <= upto(choice, 2); ++i) run.add_client(geometry(), habits);

  const std::uint64_t steps = 200 + upto(choice, 600);
  for (std::uint64_t i = 0; i < steps && run.problem().empty(); ++i) {
    run.step();
    if (happens(choice, 0.005) && !run.members().empty()) {
      const std::size_t victim = upto(choice, run.members().size() - 1);
      if (!run.members()[victim].is_leaving) run.detach(victim);
      if (run.members().size() < 6) run.add_client(geometry(), habits);
    }
    if (happens(choice, 0.005)) {  // its owner cuts a file off
      SimulatedFile& file = run.files().begin()->second;
      file.size -= upto(choice, file.size / 4);
      if (file.size == 0) file.size = 1;
    }
  }

  // Whatever was stuck comes back; then every stream must end, and nothing be left over.
  run.engine().release_all();
  for (const auto& member : run.members()) member.client->finish();
  for (int i = 0; i < 1'000'000 && !run.all_idle() && run.problem().empty(); ++i) run.step();
  for (const auto& member : run.members()) chunks += member.client->chunks();
  if (!run.problem().empty()) return run.problem();
  if (!run.all_idle()) return "a stream waits for ever";
  run.settle();
  if (!run.problem().empty()) return run.problem();
  if (const std::string left = run.leftovers(); !left.empty()) return left;
  return run.problem_with_windows();
}

TEST_CASE("simulation: thousands of seeds") {
  std::uint64_t chunks = 0;
  if (const char* const wanted = std::getenv("NVR_SIMULATION_SEED")) {
    const std::uint64_t seed = std::strtoull(wanted, nullptr, 10);
    CHECK(problem_of_seed(seed, chunks) == "");
    return;
  }
  const std::uint64_t first = test_random()();  // other seeds in each run
  const int count = scaled(2000, 400);
  for (int i = 0; i < count; ++i) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(i);
    const std::string problem = problem_of_seed(seed, chunks);
    if (problem.empty()) continue;
    FAIL("NVR_SIMULATION_SEED=" << seed << ": " << problem);
  }
  CHECK(chunks > static_cast<std::uint64_t>(count));
}

// ---- Conformance, by number

TEST_CASE("C06 the concatenation of a range's chunks is exact [simulation]") {
  Run run(test_random()(), 4, {.short_read = 0.2});
  run.files()[1].size = 5 * kSlotBytes + 77;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 2});
  const std::uint64_t size = run.files()[1].size;
  for (const std::uint64_t begin : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4097}, size - 1}) {
    for (const std::uint64_t end : {begin + 1, begin + 4096, begin + kSlotBytes, size}) {
      if (end > size) continue;
      CAPTURE(begin, end);
      client.open_range(0, 1, begin, end);
      for (int i = 0; i < 1000 && client.is_open(0); ++i) {
        run.settle();
        client.take_all(0);
        client.give_back_all(0);
      }
      CHECK(client.bytes(0) == end - begin);
      CHECK(run.problem() == "");
    }
  }
}

TEST_CASE("C12 a file is open while its stream is, and not after [simulation]") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 100 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 4, .slots = 2});
  for (std::uint32_t stream = 0; stream < 4; ++stream) client.open_range(stream, 1, 0, 100 * kSlotBytes);
  run.settle();
  CHECK(run.engine().open_files() == 4);
  for (std::uint32_t stream = 0; stream < 4; ++stream) client.close(stream);
  run.settle();
  CHECK(run.engine().open_files() == 0);
}

TEST_CASE("C16 no more chunks than the window, and who does not read stops only itself [simulation]") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 50 * kSlotBytes;
  SimulatedClient& idle = run.add_client({.streams = 1, .slots = 4});
  SimulatedClient& busy = run.add_client({.streams = 1, .slots = 4});
  idle.open_range(0, 1, 0, 50 * kSlotBytes);
  busy.open_range(0, 1, 0, 50 * kSlotBytes);
  for (int i = 0; i < 1000 && busy.is_open(0); ++i) {
    run.settle();
    busy.take_all(0);
    busy.give_back_all(0);
  }
  CHECK(busy.bytes(0) == 50 * kSlotBytes);
  idle.take_all(0);
  CHECK(idle.held(0) == 4);
  run.settle();
  idle.take_all(0);
  CHECK(idle.held(0) == 4);
  CHECK(run.problem() == "");
}

TEST_CASE("C17 streams interleave fairly [simulation]") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 400 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 4, .slots = 8});
  for (std::uint32_t stream = 0; stream < 4; ++stream) client.open_range(stream, 1, 0, 400 * kSlotBytes);
  for (int i = 0; i < 40; ++i) {
    run.settle();
    for (std::uint32_t stream = 0; stream < 4; ++stream) {
      client.take_all(stream);
      client.give_back_all(stream);
    }
  }
  for (std::uint32_t stream = 1; stream < 4; ++stream) {
    CHECK(client.bytes(stream) <= client.bytes(0) + 16 * kSlotBytes);
    CHECK(client.bytes(0) <= client.bytes(stream) + 16 * kSlotBytes);
  }
}

// Each round of the daemon's, with the reader at once behind it: how many chunks others had until then.
TEST_CASE("simulation: a user with hundreds of streams does not make another one wait for all of them") {
  constexpr std::uint32_t kMany = 250;
  for (const std::uint32_t uid : {1000U, 1001U}) {
    Run run(test_random()(), 4, {});
    run.files()[1].size = 100 * kSlotBytes;
    SimulatedClient& greedy = run.add_client({.streams = kMany, .slots = 2}, {}, 1000);
    SimulatedClient& modest = run.add_client({.streams = 1, .slots = 2}, {}, uid);
    for (std::uint32_t stream = 0; stream < kMany; ++stream)
      greedy.open_range(stream, 1, 0, 100 * kSlotBytes);
    modest.open_range(0, 1, 0, 16 * kSlotBytes);
    while (modest.is_open(0) && run.problem().empty()) {
      run.service().take_commands();
      run.service().take_credit();
      run.service().submit_operation();
      run.service().reap_completions();
      modest.take_all(0);
      modest.give_back_all(0);
    }
    CHECK(run.problem() == "");
    CHECK(modest.bytes(0) == 16 * kSlotBytes);
    const std::uint64_t others = run.statistics().chunks.value() - 16;
    CAPTURE(uid, others);
    CHECK(others < kMany / 2);
  }
}

TEST_CASE("C18 an open that is cancelled while it is queued never reaches the disk [simulation]") {
  Run run(test_random()(), 1, {.never = 1});
  run.files()[1].size = kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 2, .slots = 2});
  client.open_range(0, 1, 0, kSlotBytes);  // keeps the one place on the disk
  run.settle();
  client.open_range(1, 1, 0, kSlotBytes);
  run.settle();
  client.close(1);
  run.settle();
  client.take_all(1);
  CHECK(client.last_terminal(1)->kind == shm::DescriptorKind::kClosed);
  CHECK(run.engine().opens() == 1);
}

TEST_CASE(
    "C19 a read in flight of a cancelled stream is discarded, and then the channel is reusable "
    "[simulation]") {
  Run run(test_random()(), 2, {});
  run.files()[1].size = 100 * kSlotBytes;
  run.files()[2].size = 100 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 4});
  client.open_range(0, 1, 0, 100 * kSlotBytes);
  while (run.engine().reads() == 0) {
    run.service().take_commands();
    run.service().submit_operation();
    if (run.engine().reads() == 0) run.service().reap_completions();
  }
  client.close(0);
  run.service().take_commands();
  client.take_all(0);
  CHECK(client.is_open(0));  // the terminal waits for what is in flight
  CHECK(run.statistics().quarantined_bytes.value() > 0);
  run.settle();
  client.take_all(0);
  CHECK_FALSE(client.is_open(0));
  CHECK(run.leftovers() == "");
  client.give_back_all(0);
  client.open_range(0, 2, 3, 70'000);
  for (int i = 0; i < 100 && client.is_open(0); ++i) {
    run.settle();
    client.take_all(0);
    client.give_back_all(0);
  }
  CHECK(client.bytes(0) == 70'000 - 3);
  CHECK(run.problem() == "");
}

TEST_CASE("C25 C26 a page that cannot be read ends its stream there, and no other [simulation]") {
  Run run(test_random()(), 4, {.short_read = 0.3});
  run.files()[1] = {.size = 20 * kSlotBytes, .bad_at = 7 * kSlotBytes + 5};
  run.files()[2].size = 20 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 3, .slots = 4});
  client.open_range(0, 1, 0, 20 * kSlotBytes);
  client.open_range(1, 2, 0, 20 * kSlotBytes);
  client.open_range(2, 1, 8 * kSlotBytes, 8 * kSlotBytes + 1);
  for (int i = 0; i < 1000 && (client.is_open(0) || client.is_open(1) || client.is_open(2)); ++i) {
    run.settle();
    for (std::uint32_t stream = 0; stream < 3; ++stream) {
      client.take_all(stream);
      client.give_back_all(stream);
    }
  }
  CHECK(client.bytes(0) == 7 * kSlotBytes);
  CHECK(client.last_terminal(0)->kind == shm::DescriptorKind::kError);
  CHECK(client.last_terminal(0)->offset == 7 * kSlotBytes + 5);
  CHECK(client.bytes(1) == 20 * kSlotBytes);
  CHECK(client.last_terminal(1)->kind == shm::DescriptorKind::kEnd);
  CHECK(client.last_terminal(2)->kind == shm::DescriptorKind::kError);
  CHECK(run.leftovers() == "");
}

// ---- What random runs hardly ever come to

TEST_CASE("simulation: each generation of a stream begins with one short read") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 100 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 8});
  for (int generation = 0; generation < 2; ++generation) {
    client.open_range(0, 1, 0, 100 * kSlotBytes);
    const std::uint64_t first = run.engine().reads() + 1;
    run.settle_until_read(first);
    CHECK(run.engine().last_length() == kSlotBytes);
    for (int i = 0; i < 5; ++i) run.service().submit_operation();
    CHECK(run.engine().reads() == first);
    run.settle();
    client.take_all(0);
    CHECK(client.held(0) == 8);
    client.close(0);
    run.settle();
    client.take_all(0);
    client.give_back_all(0);
  }
  CHECK(run.problem() == "");
}

TEST_CASE("simulation: what is read of a closed stream ends with the read that was in flight") {
  Run run(test_random()(), 4, {.short_read = 1});
  run.files()[1].size = 100 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 8});
  client.open_range(0, 1, 0, 100 * kSlotBytes);
  run.settle_until_read(1);
  client.close(0);
  run.settle();
  client.take_all(0);
  CHECK_FALSE(client.is_open(0));
  CHECK(run.engine().reads() == 1);
  CHECK(run.leftovers() == "");
}

TEST_CASE("simulation: a number just beyond the largest window is no slot") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 100 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = shm::kMaxSlots});
  client.open_range(0, 1, 0, 100 * kSlotBytes);
  run.settle();
  client.take_all(0);
  REQUIRE(client.held(0) == shm::kMaxSlots);
  client.return_slot(0, shm::kMaxSlots);
  run.settle();
  CHECK(run.problem() == "violation: return of a slot that was not lent");
}

TEST_CASE("simulation: EAGAIN without end is an error in the end") {
  Run run(test_random()(), 4, {.again = 1, .most_again = INT_MAX});
  run.files()[1].size = kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 2});
  client.open_range(0, 1, 0, kSlotBytes);
  for (int i = 0; i < 1000; ++i) {
    run.service().take_commands();
    run.service().submit_operation();
    run.service().reap_completions();
  }
  client.take_all(0);
  REQUIRE(client.last_terminal(0));
  CHECK(client.last_terminal(0)->sys_errno == EAGAIN);
  CHECK(run.leftovers() == "");
}

TEST_CASE("simulation: a stream that finds the disk full of stuck operations is served after a while") {
  const bool is_rotational = GENERATE(false, true);
  Run run(test_random()(), 1, {.never = 1}, {.is_rotational = is_rotational});
  run.files()[1].size = kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 2, .slots = 2});
  client.open_range(0, 1, 0, kSlotBytes);
  run.settle();
  CHECK_FALSE(run.service().waits_for_room());
  client.open_range(1, 1, 0, kSlotBytes);
  run.settle();
  CHECK(run.service().waits_for_room());
  CHECK(wait_until([&] {
    run.settle();
    return run.engine().opens() == 2;
  }));
  CHECK_FALSE(run.service().waits_for_room());
}

// The errnos that drives, controllers, file servers and FUSE programs answer.
int any_disk_error() {
  return GENERATE(EIO, EREMOTEIO, ENODATA, EILSEQ, EBADMSG, EUCLEAN, ENODEV, ENOLINK, ETIMEDOUT, ENOMEDIUM,
                  ESHUTDOWN, ESTALE, ENOTCONN, ECONNABORTED, ECONNRESET, EHOSTDOWN, EPROTO, EBADE, ETIME,
                  EHWPOISON);
}

TEST_CASE("simulation: every errno of the disk is DataLoss at an open, and reported") {
  const int error = any_disk_error();
  CAPTURE(error);
  Run run(test_random()(), 4, {});
  run.files()[1] = {.size = kSlotBytes, .open_error = error};
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 2});
  client.open_range(0, 1, 0, kSlotBytes);
  run.settle();
  client.take_all(0);
  REQUIRE(client.last_terminal(0));
  CHECK(client.last_terminal(0)->code == static_cast<std::uint16_t>(Code::kDataLoss));
  CHECK(client.last_terminal(0)->detail == shm::Detail::kOpenFailed);
  CHECK(client.last_terminal(0)->sys_errno == error);
  REQUIRE(run.reports().size() == 1);
  CHECK(run.reports()[0].error == error);
  CHECK(run.reports()[0].operation.operation == shm::DiskOperation::kOpen);
}

TEST_CASE(
    "simulation: an errno of the request or of the daemon keeps its code at an open, and is no report") {
  const auto [error, code] = GENERATE(table<int, Code>({{ENOENT, Code::kNotFound},
                                                        {EACCES, Code::kPermissionDenied},
                                                        {EPERM, Code::kPermissionDenied},
                                                        {ELOOP, Code::kFailedPrecondition},
                                                        {EISDIR, Code::kFailedPrecondition},
                                                        {ENOTDIR, Code::kFailedPrecondition},
                                                        {ENXIO, Code::kFailedPrecondition},
                                                        {EXDEV, Code::kFailedPrecondition},
                                                        {EMFILE, Code::kResourceExhausted},
                                                        {ENFILE, Code::kResourceExhausted},
                                                        {ENOMEM, Code::kResourceExhausted},
                                                        {EOPNOTSUPP, Code::kUnimplemented},
                                                        {ENOSYS, Code::kUnimplemented},
                                                        {EINVAL, Code::kInvalidArgument},
                                                        {EBADF, Code::kInternal}}));
  CAPTURE(error);
  Run run(test_random()(), 4, {});
  run.files()[1] = {.size = kSlotBytes, .open_error = error};
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 2});
  client.open_range(0, 1, 0, kSlotBytes);
  run.settle();
  client.take_all(0);
  REQUIRE(client.last_terminal(0));
  CHECK(client.last_terminal(0)->code == static_cast<std::uint16_t>(code));
  CHECK(client.last_terminal(0)->sys_errno == error);
  CHECK(run.reports().empty());
}

TEST_CASE("simulation: every errno of the disk is DataLoss there, and reported") {
  const int error = any_disk_error();
  CAPTURE(error);
  Run run(test_random()(), 4, {});
  run.files()[1] = {.size = 4 * kSlotBytes, .bad_at = 2 * kSlotBytes + 5, .error = error};
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 8});
  client.open_range(0, 1, 0, 4 * kSlotBytes);
  run.settle();
  client.take_all(0);
  REQUIRE(client.last_terminal(0));
  CHECK(client.last_terminal(0)->code == static_cast<std::uint16_t>(Code::kDataLoss));
  CHECK(client.last_terminal(0)->sys_errno == error);
  CHECK(client.bytes(0) == 2 * kSlotBytes);
  CHECK(run.problem() == "");
  REQUIRE(run.reports().size() == 1);
  const daemon::OperationReport& report = run.reports()[0];
  CHECK(report.error == error);
  CHECK_FALSE(report.is_slow);
  CHECK(report.operation.operation == shm::DiskOperation::kRead);
  CHECK(report.operation.recording == 1);
  CHECK(report.operation.offset == 2 * kSlotBytes + 5);
  CHECK(report.length == 2 * kSlotBytes - 5);  // what was left of the read
  CHECK(report.connection == 1);
}

TEST_CASE("simulation: past the page cache an error is found by four tries, and reported once") {
  Run run(test_random()(), 1, {});
  const std::uint64_t bad_at = 13 * kSlotBytes + 9 * 512;
  run.files()[1] = {.size = 16 * kSlotBytes, .bad_at = bad_at, .block = 512};
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 16});
  const std::uint64_t begin = GENERATE(std::uint64_t{0}, std::uint64_t{512}, std::uint64_t{12'345});
  CAPTURE(begin);
  client.open_range(0, 1, begin, 16 * kSlotBytes);
  run.settle();
  client.take_all(0);
  REQUIRE(client.last_terminal(0));
  CHECK(client.last_terminal(0)->code == static_cast<std::uint16_t>(Code::kDataLoss));
  CHECK(client.last_terminal(0)->offset == bad_at);
  CHECK(client.bytes(0) == (bad_at - begin) / kSlotBytes * kSlotBytes);
  CHECK(run.engine().failed_reads() <= 4);
  REQUIRE(run.reports().size() == 1);
  CHECK(run.reports()[0].operation.offset == bad_at);
  client.give_back_all(0);
  run.settle();

  run.files()[2].size = 5 * kSlotBytes;  // nothing of the short tries is left for the next
  const std::uint64_t before = run.engine().reads();
  client.open_range(0, 2, 0, 5 * kSlotBytes);
  run.settle();
  CHECK(run.engine().reads() - before == 2);
  CHECK(run.problem() == "");
}

TEST_CASE("simulation: opens and errors are counted by what became of them, in every generation") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 2 * kSlotBytes;
  run.files()[2] = {.size = 2 * kSlotBytes, .bad_at = 0, .error = EILSEQ};
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 2});
  const auto end = [&] {
    run.settle();
    client.take_all(0);
    client.give_back_all(0);
    CHECK_FALSE(client.is_open(0));
  };
  for (int generation = 0; generation < 2; ++generation) {
    for (const std::uint64_t recording : {1U, 2U, 3U}) {  // good, bad, missing
      client.open_range(0, recording, 0, 2 * kSlotBytes);
      end();
    }
    client.open_range(0, 1, 0, kSlotBytes);
    client.close(0);
    end();
  }
  const daemon::DiskStatistics& counted = run.statistics();
  const auto opens = [&](Code code) { return counted.opens_by_code[static_cast<std::size_t>(code)].value(); };
  CHECK(opens(Code::kOk) == 4);
  CHECK(opens(Code::kNotFound) == 2);
  CHECK(opens(Code::kCancelled) == 2);
  CHECK(counted.opens.value() == 6);
  CHECK(counted.errors.value() == 4);
  CHECK(counted.errors_by_errno[EILSEQ].value() == 2);
  CHECK(counted.errors_by_errno[ENOENT].value() == 2);
  CHECK(counted.errors_by_blame[daemon::kDiskFailed].value() == 2);
  CHECK(counted.errors_by_blame[daemon::kRequestFailed].value() == 2);
  CHECK(counted.errors_by_blame[daemon::kBoundReached].value() == 0);
  CHECK(counted.chunks.value() == 4);
  CHECK(counted.bytes.value() == 4 * kSlotBytes);
}

TEST_CASE("simulation: a ring with work behind it is none without") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 100 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 2});
  daemon::Connection& connection = *run.members()[0].connection;
  connection.rings_without_work = 7;
  client.open_range(0, 1, 0, 100 * kSlotBytes);
  run.settle();
  CHECK(connection.rings_without_work == 0);
  client.take_all(0);
  connection.rings_without_work = 7;
  client.give_back_all(0);
  run.settle();
  CHECK(connection.rings_without_work == 0);
}

TEST_CASE(
    "simulation: a ring with credit behind it is none without, also while the stream has more to read") {
  Run run(test_random()(), 1, {});
  run.files()[1].size = 100 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 16});
  client.open_range(0, 1, 0, 100 * kSlotBytes);
  run.settle();
  client.take_all(0);
  for (std::uint32_t slot = 0; slot < 12; ++slot) client.return_slot(0, slot);
  run.settle_until_read(6);  // one, four, four, four and three slots, and four of the twelve
  daemon::Connection& connection = *run.members()[0].connection;
  connection.rings_without_work = 7;
  for (std::uint32_t slot = 12; slot < 16; ++slot) client.return_slot(0, slot);
  run.settle();
  CHECK(connection.rings_without_work == 0);
}

TEST_CASE("simulation: a reader who holds its window is woken to learn that its next stream is open") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 2 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 2});
  client.open_range(0, 1, 0, 2 * kSlotBytes);
  run.settle();
  client.take_all(0);
  REQUIRE(client.held(0) == 2);
  client.open_range(0, 1, 0, 2 * kSlotBytes);
  client.fall_asleep(0);
  const std::uint64_t wakes = run.statistics().wakes.value();
  run.settle();
  CHECK(run.statistics().wakes.value() == wakes + 1);
}

TEST_CASE("simulation: of a stream that is closed nothing is ahead any more") {
  Run run(test_random()(), 4, {.not_in_memory = 1}, {.is_rotational = true});
  run.files()[1].size = 100 * kSlotBytes;
  SimulatedClient& client = run.add_client({.streams = 2, .slots = 2});
  client.open_range(0, 1, 0, 100 * kSlotBytes);
  run.settle();
  client.open(
      {.opcode = shm::Opcode::kOpen, .stream = 1, .flags = shm::kOpenStatOnly, .recording = 1, .end = 1});
  run.settle();
  CHECK(run.statistics().ahead_bytes.value() > 0);
  client.close(0);
  client.take_all(1);
  client.open(
      {.opcode = shm::Opcode::kOpen, .stream = 1, .flags = shm::kOpenStatOnly, .recording = 1, .end = 1});
  run.settle();
  CHECK(run.statistics().ahead_bytes.value() == 0);
}

TEST_CASE("simulation: what streams wait for, and the list of them, as far as it goes") {
  Run run(test_random()(), 4, {});
  run.files()[1].size = 100 * kSlotBytes;
  const auto listed = [&] {
    std::vector<const daemon::Connection*> connections;
    for (const auto& member : run.members()) connections.push_back(member.connection.get());
    return nlohmann::json::parse(daemon::streams_json(connections, shm::now_ns()));
  };
  SimulatedClient& client = run.add_client({.streams = 2, .slots = 2});
  client.open({.opcode = shm::Opcode::kOpen,
               .stream = 1,
               .priority = Priority::kExport,
               .cache = CachePolicy::kDrop,
               .recording = 1,
               .begin = 100,
               .end = 90 * kSlotBytes});
  run.service().take_commands();
  CHECK(listed()["streams"][0]["waits_for"] == "queue");
  CHECK(listed()["streams"][0]["state"] == "queued");
  run.settle_until_read(2);  // a slot each
  CHECK(listed()["streams"][0]["waits_for"] == "disk");
  run.settle();
  auto all = listed();
  CHECK(all["left_out"] == 0);
  REQUIRE(all["streams"].size() == 1);
  nlohmann::json& stream = all["streams"][0];
  for (const char* const time : {"open_s", "waits_s"}) {
    CHECK(stream[time] >= 0);
    stream.erase(time);
  }
  const nlohmann::json expected = {{"connection", 1},
                                   {"pid", 0},
                                   {"uid", 0},
                                   {"stream", 1},
                                   {"generation", shm::kFirstIndex + 1},
                                   {"recording", "0/1"},
                                   {"begin", 100},
                                   {"end", 90 * kSlotBytes},
                                   {"position", 100 + 2 * kSlotBytes},
                                   {"bytes", 2 * kSlotBytes},
                                   {"priority", "export"},
                                   {"cache", "drop"},
                                   {"state", "reading"},
                                   {"waits_for", "reader"}};
  CHECK(stream == expected);
  while (run.members().size() * shm::kMaxStreams <= daemon::kMaxStreamsListed) {
    SimulatedClient& other = run.add_client({.streams = shm::kMaxStreams, .slots = 2});
    for (std::uint32_t i = 0; i < shm::kMaxStreams; ++i) other.open_range(i, 1, 0, kSlotBytes);
  }
  run.service().take_commands();
  CHECK(listed()["streams"].size() == daemon::kMaxStreamsListed);
  CHECK(listed()["left_out"] == 1);
}

// ---- Recordings that grow

// A recording whose size those see who follow it.
class Growing {
 public:
  Growing(Run& run, std::uint64_t size) : run_(run), fd_(memfd_create("growing", MFD_CLOEXEC)) {
    run.files()[kId].fd = fd_.get();
    resize(size);
  }
  void resize(std::uint64_t size) {
    if (ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) throw TestFailure("cannot resize");
    run_.files()[kId].size = size;
  }
  // Follows it from its begin on, until it is told to end.
  static void follow(SimulatedClient& client) {
    client.open({.opcode = shm::Opcode::kOpen,
                 .flags = shm::kOpenFollow | shm::kOpenToEnd,
                 .recording = kId,
                 .quiet_ms = UINT64_MAX});
  }
  // Both sides, with looks at the recording, until `condition()`.
  template <class Condition>
  [[nodiscard]] bool go_on_until(SimulatedClient& client, Condition&& condition) {
    return wait_until([&] {
      looks_ += run_.service().look_for_growth() ? 1 : 0;
      run_.settle();
      client.take_all(0);
      client.give_back_all(0);
      return condition();
    });
  }
  [[nodiscard]] int looks() const { return looks_; }

  static constexpr std::uint64_t kId = 1;

 private:
  Run& run_;
  shm::UniqueFd fd_;
  int looks_ = 0;
};

TEST_CASE("simulation: nothing of a stream that followed a recording is left for the next on its channel") {
  Run run(test_random()(), 4, {});
  Growing recording(run, 3 * kSlotBytes + 7);
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 4});
  const auto has_ended = [&] { return !client.is_open(0); };
  // Told that it is finished before it was opened.
  Growing::follow(client);
  client.finish(0);
  REQUIRE(recording.go_on_until(client, has_ended));
  CHECK(client.last_terminal(0)->kind == shm::DescriptorKind::kEnd);
  CHECK(client.bytes(0) == 3 * kSlotBytes + 7);
  // The next has not been told.
  Growing::follow(client);
  REQUIRE(recording.go_on_until(client, [&] { return recording.looks() == 2; }));
  CHECK(client.bytes(0) == 3 * kSlotBytes);
  CHECK(client.is_open(0));
  CHECK(run.statistics().streams_waiting.value() == 0);
  recording.resize(5 * kSlotBytes);
  REQUIRE(recording.go_on_until(client, [&] { return client.bytes(0) == 5 * kSlotBytes; }));
  client.close(0);
  REQUIRE(recording.go_on_until(client, has_ended));
  // And this one follows nothing.
  client.open_range(0, Growing::kId, 0, 2 * kSlotBytes + 1);
  REQUIRE(recording.go_on_until(client, has_ended));
  CHECK(client.bytes(0) == 2 * kSlotBytes + 1);
  CHECK(run.problem() == "");
  CHECK(run.leftovers() == "");
}

TEST_CASE("simulation: a recording that is followed and cut behind what was delivered is DataLoss") {
  Run run(test_random()(), 4, {});
  Growing recording(run, 3 * kSlotBytes + 7);
  SimulatedClient& client = run.add_client({.streams = 1, .slots = 4});
  Growing::follow(client);
  REQUIRE(recording.go_on_until(client, [&] { return client.bytes(0) == 3 * kSlotBytes; }));
  recording.resize(3 * kSlotBytes + 1);
  REQUIRE(recording.go_on_until(client, [&] { return !client.is_open(0); }));
  CHECK(client.last_terminal(0)->detail == shm::Detail::kTruncated);
  CHECK(client.last_terminal(0)->offset == 3 * kSlotBytes + 1);
  CHECK(run.leftovers() == "");
}

}  // namespace
}  // namespace nvr::test
