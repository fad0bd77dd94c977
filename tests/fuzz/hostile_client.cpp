#include "tests/fuzz/hostile_client.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <memory>

#include "daemon/disk_service.h"
#include "daemon/peers.h"
#include "shm/clock.h"
#include "tests/fuzz/intruder.h"
#include "tests/simulation/simulated_client.h"
#include "tests/simulation/simulated_engine.h"
#include "tests/support/wait.h"

namespace nvr::test {
namespace {

using daemon::Connection;
using shm::kSlotBytes;

constexpr std::size_t kMaxIntruders = 4;       // at a time
constexpr std::uint32_t kMaxConnections = 48;  // in all, of one program

// A socket's place, removed when the process ends.
class Place {
 public:
  Place() {
    const char* const parent = getenv("TMPDIR");
    directory_ = std::string(parent != nullptr ? parent : "/tmp") + "/nvr-world-XXXXXX";
    if (mkdtemp(directory_.data()) == nullptr) throw TestFailure("cannot create " + directory_);
  }
  ~Place() {
    unlink(path().c_str());
    rmdir(directory_.c_str());
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  [[nodiscard]] std::string path() const { return directory_ + "/socket"; }

 private:
  std::string directory_;
};

const std::string& socket_path() {
  static const Place place;
  static const std::string path = place.path();
  return path;
}

// Of each hostile client the daemon has something to say.
class Silence {
 public:
  Silence() : level_(spdlog::get_level()) { spdlog::set_level(spdlog::level::off); }
  ~Silence() { spdlog::set_level(level_); }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  spdlog::level::level_enum level_;
};

int lowest_free_descriptor() {
  const shm::UniqueFd probe(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0));
  return probe.get();
}

Faults faults_of(std::uint32_t bits) {
  return {.short_read = (bits & 1) != 0 ? 0.3 : 0,
          .interrupted = (bits & 2) != 0 ? 0.1 : 0,
          .again = (bits & 4) != 0 ? 0.3 : 0,
          .never = (bits & 8) != 0 ? 0.05 : 0,
          .open_fails = (bits & 16) != 0 ? 0.2 : 0,
          .longest_delay = bits >> 5};
}

class World {
 public:
  World(Program& program, bool spoil)
      : program_(program),
        spoil_(spoil),
        random_(program.take<std::uint16_t>()),
        engine_(random_, 1 + program.upto(7), faults_of(program.take<std::uint8_t>()), files_),
        in_flight_(daemon::kMaxOperations),
        service_(engine_, statistics_, in_flight_, {},
                 [this](const daemon::FromDisk& message) { mail_.push_back(message); }),
        epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    for (std::uint64_t id = 1; id <= 4; ++id) files_[id].size = (5 * id - 3) * kSlotBytes + 100 * id;
    files_[4].bad_at = 3 * kSlotBytes + 1;
    auto disk = daemon::DiskThread::create(
        {.directory = "/world", .engine = "none", .max_connections = kMaxConnections}, -1);
    if (!disk) throw TestFailure(disk.error().message);
    disk_ = std::move(*disk);  // never started: its work is done here
    peers_.emplace(epoll_.get(), *disk_,
                   daemon::Peers::Setup{.admission = daemon::Admission({.max_clients = 3,
                                                                        .max_clients_per_uid = 3,
                                                                        .client_memory_bytes = 2 << 20,
                                                                        .total_memory_bytes = 4 << 20},
                                                                       geteuid(), {}),
                                        .instance = 1,
                                        .directory = "/world",
                                        .status = [] { return std::string(20'000, ' '); },
                                        .streams = [] { return std::string(40'000, ' '); },
                                        .stall_log = [] { return std::string("{}"); },
                                        .metrics = [] { return std::string("# none\n"); }});
    if (auto listening = peers_->listen(socket_path(), false); !listening)
      throw TestFailure(listening.error().message);
    auto honest = Connection::create(UINT32_MAX, {}, {.streams = 2, .slots = 4}, 1, -1);
    if (!honest) throw TestFailure(honest.error().message);
    honest_ = std::move(*honest);
    client_ = std::make_unique<SimulatedClient>(random_, *honest_, files_, Habits{});
    service_.attach(*honest_);
  }

  void run() {
    while (!program_.has_ended() && problem_.empty()) step();
  }
  // Everybody leaves; what is stuck comes back.
  void finish() {
    engine_.release_all();
    client_->finish();
    intruders_.clear();
    for (int i = 0; i < 20'000 && problem_.empty(); ++i) {
      turn_daemon();
      for (int s = 0; s < 4; ++s) client_->step();
      note_problems();
      const bool all_gone = peers_->admission().clients() == 0 && peers_->totals().controls == 0;
      if (client_->is_idle() && attached_.empty() && engine_.in_flight() == 0 && all_gone) break;
    }
    if (!problem_.empty()) return;
    if (!client_->is_idle()) return object("the well-behaved client waits for ever");
    if (!attached_.empty()) return object("a connection is never let go of");
    service_.detach(*honest_);
    take_control_mail();
    peers_->check_deadlines();
    if (engine_.open_files() != 0) object("open files are left");
    if (statistics_.streams_open.value() != 0) object("open streams are left");
    if (statistics_.quarantined_bytes.value() != 0) object("quarantined bytes are left");
    if (in_flight_.count() != 0) object("entries for the watchdog are left");
    if (peers_->admission().clients() != 0) object("a client that has left is counted");
    if (peers_->totals().controls != 0) object("a control connection that has left is counted");
  }

  [[nodiscard]] Verdict verdict() const {
    return {.problem = problem_, .chunks = client_->chunks(), .offences = offences_, .served = served_};
  }

 private:
  void step();
  void step_intruder(Intruder& intruder, std::uint8_t what);

  // ---- The daemon's two threads

  void turn_daemon() {
    turn_control();
    take_disk_mail();
    service_.take_commands();
    service_.take_credit();
    service_.submit_operation();
    service_.reap_completions();
    take_control_mail();
  }
  void turn_control() {
    std::array<epoll_event, 16> events;
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      peers_->on_event(event.data.u64, event.events);
    }
    take_control_mail();
  }
  void take_disk_mail() {
    while (const auto message = disk_->take_posted()) {
      if (const auto* const attach = std::get_if<daemon::Attach>(&*message)) {
        ++served_;
        attached_.push_back(attach->connection);
        service_.attach(*attach->connection);
      } else if (const auto* const detach = std::get_if<daemon::Detach>(&*message)) {
        service_.detach(*detach->connection);
      }
    }
  }
  void take_control_mail() {
    while (!mail_.empty()) {
      const daemon::FromDisk message = std::move(mail_.front());
      mail_.pop_front();
      if (const auto* const violation = std::get_if<daemon::Violation>(&message)) {
        offences_.emplace_back(violation->offence);
        if (violation->connection == honest_.get())
          object(std::string("the well-behaved client is accused: ") + violation->offence);
        peers_->on_violation(*violation->connection, violation->offence);
      } else if (const auto* const detached = std::get_if<daemon::Detached>(&message)) {
        let_go(*detached->connection);
      }
    }
  }
  void let_go(Connection& connection) {
    const auto& map = connection.read_segment().mapping();
    if (engine_.writes_to(map.data(), map.data() + map.size())) object("let go of memory that is written to");
    std::erase(attached_, &connection);
    if (&connection == honest_.get()) return;
    peers_->on_detached(connection);
  }

  void note_problems() {
    if (!engine_.problem().empty()) object("engine: " + engine_.problem());
    if (!client_->problem().empty()) object("the well-behaved client: " + client_->problem());
  }
  void object(const std::string& what) {
    if (problem_.empty()) problem_ = what;
  }

  Program& program_;
  bool spoil_;
  Random random_;
  std::map<std::uint64_t, SimulatedFile> files_;
  SimulatedEngine engine_;
  daemon::DiskStatistics statistics_;
  daemon::InFlight in_flight_;
  std::deque<daemon::FromDisk> mail_;
  daemon::DiskService service_;
  std::unique_ptr<Connection> honest_;  // served until the end; the service's operations outlive it
  shm::UniqueFd epoll_;
  std::unique_ptr<daemon::DiskThread> disk_;
  std::optional<daemon::Peers> peers_;
  std::unique_ptr<SimulatedClient> client_;
  std::vector<Connection*> attached_;  // the hostile ones
  std::vector<Intruder> intruders_;
  std::uint32_t connections_ = 0;
  std::vector<std::string> offences_;
  std::uint64_t served_ = 0;
  std::string problem_;
};

void World::step() {
  const auto what = program_.take<std::uint8_t>();
  switch (what % 32) {
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
    case 4:
      take_disk_mail();
      break;
    case 5:
      turn_control();
      break;
    case 6:
    case 7:
      turn_daemon();
      break;
    case 8:
    case 9:
      for (int i = 0; i < 8; ++i) client_->step();
      break;
    case 10:
      engine_.release_all();
      break;
    case 11:
      if (intruders_.size() == kMaxIntruders || connections_ == kMaxConnections) break;
      if (auto intruder = Intruder::connect(socket_path())) {
        intruders_.push_back(std::move(*intruder));
        ++connections_;
      }
      break;
    case 12:  // the whole of the handshake
      if (intruders_.empty()) break;
      intruders_.back().say_hello(program_);
      turn_control();
      turn_control();
      intruders_.back().listen();
      intruders_.back().say_ready();
      turn_control();
      take_disk_mail();
      break;
    default:
      if (intruders_.empty()) break;
      step_intruder(intruders_[(what / 32u) % intruders_.size()], what % 32);
  }
  if (spoil_) *honest_->read_view().slot(0, 0) ^= std::byte{1};
  note_problems();
}

void World::step_intruder(Intruder& intruder, std::uint8_t what) {
  switch (what) {
    case 13:
      return intruder.say_anything(program_);
    case 14:
      std::swap(intruder, intruders_.back());
      return intruders_.pop_back();
    case 15:
      return intruder.listen();
    case 16:
      return intruder.write_word(program_);
    case 17:
      return intruder.move_word(program_);
    case 18:
      return intruder.post(program_, true);
    case 19:
      return intruder.post_close(program_);
    case 20:
      return intruder.return_any(program_);
    case 21:
      return intruder.ring();
    case 22:
    case 23:
      return intruder.take_and_return(program_);
    case 24:  // and lets them starve
      for (int i = 0; i < 3; ++i) intruder.post(program_, false);
      for (int i = 0; i < 8; ++i) turn_daemon();
      return;
    case 25:
    case 26:
      return turn_daemon();
    default:
      return intruder.post(program_, false);
  }
}

Verdict run_once(std::span<const std::byte> bytes, bool spoil) {
  Program program(bytes);
  World world(program, spoil);
  world.run();
  world.finish();
  return world.verdict();
}

void run(std::span<const std::byte> input, Judgement& judgement) {
  const Verdict verdict = run_program(input);
  if (!verdict.problem.empty()) judgement.object(verdict.problem);
  for (const std::string& offence : verdict.offences) judgement.reach(offence);
  if (verdict.served > 0) judgement.reach("served");
  if (verdict.chunks > 0) judgement.reach("the well-behaved client reads");
}

}  // namespace

Verdict run_program(std::span<const std::byte> program, bool spoil) {
  // The daemon's own bounds on time (a second for a handshake, half of one for a stuck read) are real; a
  // process that was stopped meanwhile runs the program again.
  constexpr std::uint64_t kTooLong = 300 * shm::kMillisecond;
  const Silence silence;
  for (int i = 0;; ++i) {
    static_cast<void>(socket_path());
    const int before = lowest_free_descriptor();
    const std::uint64_t begin_ns = shm::now_ns();
    Verdict verdict = run_once(program, spoil);
    const bool was_quick = shm::now_ns() - begin_ns < kTooLong;
    // nvr-streamer's thread in this process (http.cpp) has a socket for a moment again and again.
    const auto is_clean = [&] { return lowest_free_descriptor() <= before; };
    if (verdict.problem.empty() && !wait_until(is_clean, std::chrono::seconds(5)))
      verdict.problem = "leaked a descriptor";
    if (verdict.problem.empty() || was_quick || i == 5) return verdict;
  }
}

const FuzzTarget hostile_client_target = {
    "hostile_client",
    run,
    {"served", "the well-behaved client reads", "return of a slot that was not lent",
     "command ring moved further than it is long", "command with an unknown opcode",
     "OPEN of a stream whose last generation has not ended", "OPEN with a generation out of order",
     "CLOSE of a generation that is not the last one", "FINISH of a generation that is not the last one",
     "FINISH of a stream that follows nothing"}};

}  // namespace nvr::test
