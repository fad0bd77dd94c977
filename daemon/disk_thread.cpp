#include "daemon/disk_thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "daemon/engines.h"
#include "daemon/limits.h"
#include "shm/clock.h"

namespace nvr::daemon {
namespace {

constexpr std::uint32_t kMailDoorbell = 0;    // connections have 1 and up
constexpr std::uint64_t kMaxSpinNs = 20'000;  // about what a sleep and a wake cost
constexpr std::uint64_t kMinSpinNs = 1'000;
constexpr std::size_t kMaxSpinConnections = 32;  // with more, one look costs as much as a sleep
constexpr std::uint32_t kMaxRingsWithoutWork = 1000;
constexpr int kMutedPollMs = 10;
constexpr int kDirectoryRetryMs = 250;
constexpr std::size_t kPlacesPerConnection = 2;
constexpr std::size_t kOtherPlaces = 16;  // start, engine
constexpr std::size_t kReportPlaces = 64;

void ring(int eventfd) {
  const std::uint64_t one = 1;
  static_cast<void>(
      !write(eventfd, &one, sizeof(one)));  // fails only when the counter is full: it has rung then
}

}  // namespace

Result<std::unique_ptr<DiskThread>> DiskThread::create(DiskThreadOptions options, int control_wakeup) {
  auto doorbells = Doorbells::create();
  if (!doorbells) return tl::unexpected(doorbells.error());
  shm::UniqueFd mail_wakeup(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!mail_wakeup) return fail_errno(errno, "cannot create an eventfd");
  if (auto added = doorbells->add(mail_wakeup.get(), kMailDoorbell); !added)
    return tl::unexpected(added.error());
  return std::unique_ptr<DiskThread>(
      new DiskThread(std::move(options), std::move(*doorbells), std::move(mail_wakeup), control_wakeup));
}

DiskThread::DiskThread(DiskThreadOptions options, Doorbells doorbells, shm::UniqueFd mail_wakeup,
                       int control_wakeup)
    : options_(std::move(options)),
      doorbells_(std::move(doorbells)),
      mail_wakeup_(std::move(mail_wakeup)),
      control_wakeup_(control_wakeup),
      // Per connection: ATTACH and DETACH, and STOP; VIOLATION and DETACHED, and some room for reports of
      // operations.
      to_disk_(kPlacesPerConnection * options_.max_connections + 2),
      from_disk_(kPlacesPerConnection * options_.max_connections + kOtherPlaces + kReportPlaces),
      in_flight_(kMaxOperations),
      by_doorbell_(options_.max_connections + 1) {}

DiskThread::~DiskThread() {
  if (!thread_.joinable()) return;
  post(Stop{});
  thread_.join();
}

Result<void> DiskThread::start() {
  auto thread = start_thread([this] { run(); }, "the thread that reads the disk");
  if (!thread) return tl::unexpected(thread.error());
  thread_ = std::move(*thread);
  const auto slash = options_.directory.find_last_not_of('/');
  std::string name = options_.directory.substr(0, slash + 1);
  name = "r-" + name.substr(name.rfind('/') + 1);
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
  return {};
}

void DiskThread::post(const ToDisk& message) {
  const bool posted = to_disk_.put(message);
  assert(posted);  // the capacity is the sum of what can be under way
  static_cast<void>(posted);
  ring(mail_wakeup_.get());
}

void DiskThread::run() {
  if (!open_directory() || !set_up_engine()) return;
  while (serve()) {
  }
}

// The whole of the work. Each step says whether it found something to do.
bool DiskThread::serve() {
  bool busy = take_all();
  busy |= service_->submit_operation();
  busy |= service_->reap_completions();
  busy |= service_->look_for_growth();
  service_->probe_if_stuck();
  if (busy) update_activity();
  if (auto failure =
          engine_->failure()) {  // what it has is the kernel's for good: nothing is touched any more
    tell(EngineFailed{std::move(*failure)});
    return false;
  }
  if (!busy && !stopping_) sleep();
  return !stopping_;
}

bool DiskThread::open_directory() {
  bool told = false;
  for (;;) {
    auto directory = SampleDir::open(options_.directory, options_.expected_file);
    if (directory) {
      directory_ = std::move(*directory);
      break;
    }
    if (!options_.wait_for_directory) {
      tell(StartFailed{directory.error()});
      return false;
    }
    if (!std::exchange(told, true)) tell(DirectoryMissing{directory.error()});
    pollfd entry = {.fd = doorbells_.fd(), .events = POLLIN, .revents = 0};
    poll(&entry, 1, kDirectoryRetryMs);
    take_mail();
    if (stopping_) return false;
  }
  return true;
}

bool DiskThread::set_up_engine() {
  const Device device = describe_device(directory_->fd(), options_.device_kind);
  auto chosen = make_engine(options_.engine, *directory_, doorbells_.fd(), device,
                            {.io_depth = options_.io_depth, .restrict_ring = options_.sandbox});
  if (!chosen) {
    tell(StartFailed{chosen.error()});
    return false;
  }
  engine_ = std::move(chosen->engine);
  service_.emplace(*engine_, statistics_, in_flight_,
                   DiskService::Setup{.slow_operation_ns = options_.slow_operation_ns,
                                      .is_rotational = device.rotational,
                                      .fifo = options_.fifo_visits,
                                      .reserve_percent = options_.reserve_percent},
                   [this](FromDisk message) { tell(std::move(message)); });
  if (options_.probes && engine_->reads_direct()) service_->enable_probes();
  if (sysconf(_SC_NPROCESSORS_ONLN) > 1) spin_ns_ = kMaxSpinNs;
  // All that this thread opens by name it has opened.
  const Confinement confinement = options_.sandbox ? confine_disk_thread(directory_->fd()) : Confinement();
  tell(DirectoryOpened{.engine = engine_->name(),
                       .note = std::move(chosen->note),
                       .identity = directory_->identity(),
                       .is_empty = directory_->is_empty(),
                       .device = device,
                       .confinement = confinement,
                       .engine_confinement = engine_->confinement()});
  return true;
}

// ---- Mail
// ----------------------------------------------------------------------------------------------------------

bool DiskThread::take_mail() {
  bool any = false;
  while (auto message = to_disk_.take()) {
    any = true;
    if (const auto* a = std::get_if<Attach>(&*message)) attach(*a->connection);
    if (const auto* d = std::get_if<Detach>(&*message)) detach(*d->connection);
    if (std::holds_alternative<Stop>(*message)) stopping_ = true;
  }
  return any;
}

// Reports of operations may be lost, and leave the places that all other messages can need.
void DiskThread::tell(FromDisk message) {
  const bool is_report = std::holds_alternative<OperationReport>(message);
  if (is_report && from_disk_.room() <= kPlacesPerConnection * options_.max_connections + kOtherPlaces)
    return statistics_.reports_lost.add();
  if (from_disk_.put(std::move(message))) ring(control_wakeup_);
}

void DiskThread::attach(Connection& connection) {
  service_->attach(connection);
  const auto free = std::find(by_doorbell_.begin() + 1, by_doorbell_.end(), nullptr);
  assert(free != by_doorbell_.end());
  *free = &connection;
  if (!doorbells_.add(connection.doorbell(), static_cast<std::uint32_t>(free - by_doorbell_.begin()))) {
    connection.is_muted = true;  // then it is polled
    ++muted_;
  }
}

void DiskThread::detach(Connection& connection) {
  if (connection.is_muted)
    --muted_;
  else
    doorbells_.remove(connection.doorbell());
  std::replace(by_doorbell_.begin(), by_doorbell_.end(), &connection, static_cast<Connection*>(nullptr));
  service_->detach(connection);
}

// ---- Sleep
// -------------------------------------------------------------------------------------------------------------

// S1 to S4 of shm/wake.h, for all connections at once.
void DiskThread::sleep() {
  if (spin()) return;
  const auto for_each_sleeper = [this](auto&& call) {
    for (Connection* const connection : service_->connections()) call(connection->sleeper());
  };
  shm::sleep_unless(
      for_each_sleeper, [this] { return take_all(); },
      [this] {
        statistics_.sleeps.add();
        const int rest_ms = engine_->wait(timeout_ms());
        doorbells_.drain(rest_ms, [this](std::uint32_t id) {
          if (id != kMailDoorbell && by_doorbell_[id] != nullptr) on_ring(*by_doorbell_[id]);
        });
        if (muted_ > 0 && shm::now_ns() >= next_unmute_ns_) unmute_all();
      });
}

// For how long to sleep, if nothing happens.
int DiskThread::timeout_ms() const {
  const std::uint64_t now_ns = shm::now_ns();
  const int rest_ms = rest_ms_at(now_ns);
  const std::uint64_t due_ns = service_->growth_due_ns();
  if (due_ns == 0) return rest_ms;
  const auto growth_ms = static_cast<int>(due_ns > now_ns ? (due_ns - now_ns) / shm::kMillisecond + 1 : 0);
  return rest_ms < 0 ? growth_ms : std::min(rest_ms, growth_ms);
}

// The same, but for recordings that grow.
int DiskThread::rest_ms_at(std::uint64_t now_ns) const {
  int rest_ms = service_->waits_for_room() || service_->wants_to_probe() ? DiskService::kStuckMs : -1;
  if (const std::uint64_t until_ns = service_->paused_until_ns(); until_ns > now_ns)
    rest_ms = static_cast<int>((until_ns - now_ns) / shm::kMillisecond + 1);
  if (muted_ > 0) rest_ms = rest_ms < 0 ? kMutedPollMs : std::min(rest_ms, kMutedPollMs);
  return rest_ms;
}

// Looks for work for a while before the thread sleeps: for as long as a sleep and a wake would take, if that
// was worth it lately.
bool DiskThread::spin() {
  // With windows full the clients have enough to go on with, and ring when half of a window has come back.
  if (spin_ns_ == 0 || service_->connections().size() > kMaxSpinConnections || service_->has_starved())
    return false;
  const std::uint64_t deadline_ns = shm::now_ns() + spin_ns_;
  do {
    for (int i = 0; i < 32; ++i) shm::cpu_relax();
    if (take_all()) {
      spin_ns_ = kMaxSpinNs;
      return true;
    }
  } while (shm::now_ns() < deadline_ns);
  spin_ns_ = std::max(spin_ns_ / 2, kMinSpinNs);
  return false;
}

// A doorbell that rings and rings with nothing behind it is no longer listened to; the connection is polled
// instead.
void DiskThread::on_ring(Connection& connection) {
  if (++connection.rings_without_work <= kMaxRingsWithoutWork) return;
  connection.is_muted = true;
  ++muted_;
  next_unmute_ns_ = shm::now_ns() + kMutedPollMs * shm::kMillisecond;
  doorbells_.remove(connection.doorbell());
}

// After a pause of kMutedPollMs every muted doorbell gets another chance, of one ring. Adding an eventfd that
// holds old rings is an edge by itself, which is no ring: the edges that are there now are dropped. Nothing
// is lost with them, because the thread looks for all work and mail before it sleeps again.
void DiskThread::unmute_all() {
  for (std::uint32_t id = 1; id < by_doorbell_.size(); ++id) {
    Connection* const connection = by_doorbell_[id];
    if (connection == nullptr || !connection->is_muted || !doorbells_.add(connection->doorbell(), id))
      continue;
    connection->is_muted = false;
    --muted_;
  }
  doorbells_.drain(0, [](std::uint32_t) {});
}

void DiskThread::update_activity() {
  const bool active = statistics_.streams_open.value() != 0;
  if ((active_.load(std::memory_order_relaxed) != 0) == active) return;
  active_.store(active ? 1 : 0,
                std::memory_order_seq_cst);  // pairs with the control thread's Sleeper::announce()
  if (!active) return;
  heartbeat_.ring_if_asleep([this] {
    ring(control_wakeup_);
    return true;
  });
}

}  // namespace nvr::daemon
