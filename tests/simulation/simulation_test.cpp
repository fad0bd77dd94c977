// The disk thread's work under a simulated engine: thousands of seeds over scheduler, streams, credit,
// cancellation and connection ends, and directed cases of the conformance suite. Everything that happens in a
// run comes from its seed; a run that fails prints it, and NVR_SIMULATION_SEED=N replays that one.
#include <fcntl.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <memory>

#include "daemon/disk_service.h"
#include "tests/simulation/simulated_client.h"
#include "tests/simulation/simulated_engine.h"
#include "tests/support/environment.h"

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

  SimulatedClient& add_client(shm::Geometry geometry, Habits habits = {}) {
    auto connection = daemon::Connection::create(next_id_++, {}, geometry, 1, -1);
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
    if (statistics_.quarantined_bytes.value() != 0) return "quarantined bytes";
    if (in_flight_.count() != 0) return "entries for the watchdog";
    return {};
  }
  // Does any stream, all of them idle, lack a slot of its window?
  [[nodiscard]] std::string problem_with_windows() {
    files_[kGood].size = shm::kMaxSlots * kSlotBytes;
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
      }
    }
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

 private:
  static constexpr std::uint64_t kGood = 100;  // a recording that all of can be read

  void hear(const daemon::FromDisk& message) {
    if (const auto* violation = std::get_if<daemon::Violation>(&message))
      problem_ = std::string("violation: ") + violation->offence;
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
  }
  const auto geometry = [&]() -> shm::Geometry {
    return {.streams = static_cast<std::uint32_t>(1 + upto(choice, 3)),
            .slots = std::uint32_t{1} << (1 + upto(choice, 2))};
  };
  for (std::uint64_t i = 0; i <= upto(choice, 2); ++i) run.add_client(geometry());

  const std::uint64_t steps = 200 + upto(choice, 600);
  for (std::uint64_t i = 0; i < steps && run.problem().empty(); ++i) {
    run.step();
    if (happens(choice, 0.005) && !run.members().empty()) {
      const std::size_t victim = upto(choice, run.members().size() - 1);
      if (!run.members()[victim].is_leaving) run.detach(victim);
      if (run.members().size() < 6) run.add_client(geometry());
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
  for (int i = 0; i < 100'000 && !run.all_idle() && run.problem().empty(); ++i) run.step();
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

}  // namespace
}  // namespace nvr::test
