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
#include "shm/clock.h"
#include "shm/command.h"

namespace nvr::daemon {
namespace {

constexpr std::uint32_t kMailDoorbell = 0;  // connections have 1 and up
constexpr std::uint32_t kMaxOperations = 64;
constexpr std::uint32_t kMaxRetries = 16;     // of EAGAIN, which XFS may answer for a while
constexpr std::uint64_t kMaxSpinNs = 20'000;  // about what a sleep and a wake cost
constexpr std::uint64_t kMinSpinNs = 1'000;
constexpr std::size_t kMaxSpinConnections = 32;  // with more, one look costs as much as a sleep
constexpr std::uint32_t kMaxRingsWithoutWork = 1000;
constexpr int kMutedPollMs = 10;
constexpr int kDirectoryRetryMs = 250;

void ring(int eventfd) {
  const std::uint64_t one = 1;
  static_cast<void>(
      !write(eventfd, &one, sizeof(one)));  // fails only when the counter is full: it has rung then
}

shm::OldestOperation describe(const Operation& operation) {
  return {.operation = operation.kind == Operation::Kind::kOpen ? shm::DiskOperation::kOpen
                                                                : shm::DiskOperation::kRead,
          .since_ns = operation.submitted_ns,
          .recording = operation.recording.composite(),
          .offset = operation.offset + operation.done};
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
      // Per connection: ATTACH and DETACH, and STOP; VIOLATION and DETACHED, and some room for slow
      // operations.
      to_disk_(2 * options_.max_connections + 2),
      from_disk_(2 * options_.max_connections + 64),
      in_flight_(kMaxOperations),
      by_doorbell_(options_.max_connections + 1) {
  connections_.reserve(options_.max_connections);
}

DiskThread::~DiskThread() {
  if (!thread_.joinable()) return;
  post(Stop{});
  thread_.join();
}

void DiskThread::start() {
  thread_ = std::thread([this] { run(); });
  const auto slash = options_.directory.find_last_not_of('/');
  std::string name = options_.directory.substr(0, slash + 1);
  name = "r-" + name.substr(name.rfind('/') + 1);
  pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
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
  busy |= submit_operations();
  busy |= reap_completions();
  if (!busy && !stopping_) sleep();
  return !stopping_;
}

bool DiskThread::open_directory() {
  bool told = false;
  for (;;) {
    auto directory = SampleDir::open(options_.directory);
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
  const Device device = describe_device(directory_->device(), options_.device_kind);
  auto chosen = make_engine(options_.engine, *directory_, doorbells_.fd(), device, options_.io_depth);
  if (!chosen) {
    tell(StartFailed{chosen.error()});
    return false;
  }
  engine_ = std::move(chosen->engine);
  operations_.emplace(std::min(engine_->depth(), kMaxOperations));
  context_.emplace(DiskContext{scheduler_, *operations_, *engine_, statistics_});
  if (sysconf(_SC_NPROCESSORS_ONLN) > 1) spin_ns_ = kMaxSpinNs;
  tell(DirectoryOpened{.engine = engine_->name(), .note = std::move(chosen->note), .device = device});
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

void DiskThread::tell(FromDisk message) {
  if (from_disk_.put(std::move(message)))
    ring(control_wakeup_);  // full only of slow operations, which may be lost
}

void DiskThread::attach(Connection& connection) {
  connection.attach(*context_);
  connections_.push_back(&connection);
  const auto free = std::find(by_doorbell_.begin() + 1, by_doorbell_.end(), nullptr);
  assert(free != by_doorbell_.end());
  *free = &connection;
  if (!doorbells_.add(connection.doorbell(), static_cast<std::uint32_t>(free - by_doorbell_.begin()))) {
    connection.is_muted = true;  // then it is polled
    ++muted_;
  }
}

void DiskThread::detach(Connection& connection) {
  connection.condemn();
  connection.is_leaving = true;
  ++leaving_;
  if (connection.is_muted)
    --muted_;
  else
    doorbells_.remove(connection.doorbell());
  std::replace(by_doorbell_.begin(), by_doorbell_.end(), &connection, static_cast<Connection*>(nullptr));
  finish_detaching();
  update_activity();
}

// Lets go of the connections that wait to leave and of which the engine holds nothing any more (invariant 5).
void DiskThread::finish_detaching() {
  if (leaving_ == 0) return;
  std::erase_if(connections_, [this](Connection* connection) {
    if (!connection->is_leaving || connection->has_operations_in_flight()) return false;
    --leaving_;
    tell(Detached{connection});
    return true;
  });
}

void DiskThread::condemn(Connection& connection, const char* offence) {
  connection.condemn();
  update_activity();
  tell(Violation{.connection = &connection, .offence = offence});
}

// ---- Clients
// ---------------------------------------------------------------------------------------------------------

bool DiskThread::take_commands() {
  bool any = false;
  for (Connection* const connection : connections_) {
    if (connection->is_condemned()) continue;
    std::optional<const char*> offence;
    const bool kept = connection->commands().take([&](const shm::Command& command) {
      any = true;
      connection->rings_without_work = 0;
      offence = shm::offence_of(command, connection->geometry().streams);
      if (!offence) take_command(connection->stream(command.stream), command, offence);
      return !offence.has_value();
    });
    if (!kept) condemn(*connection, offence.value_or("command ring moved further than it is long"));
  }
  if (any) update_activity();
  return any;
}

void DiskThread::take_command(ServedStream& stream, const shm::Command& command,
                              std::optional<const char*>& offence) {
  if (command.opcode == shm::Opcode::kClose) {
    offence = stream.close(command.generation);
    return;
  }
  // What is held of generations before may have come back while the stream was idle.
  if (!stream.take_credit()) {
    offence = "return of a slot that was not lent";
    return;
  }
  offence = stream.open(command, shm::now_ns());
}

// Streams that wait for credit are looked at here; all others when their turn to read comes.
bool DiskThread::take_credit() {
  bool any = false;
  scheduler_.for_each_starved([&](Schedulable& schedulable) {
    auto& stream = static_cast<ServedStream&>(schedulable);
    if (!stream.take_credit()) {
      condemn(stream.connection(), "return of a slot that was not lent");
      return;
    }
    if (!stream.has_credit()) return;
    stream.connection().rings_without_work = 0;
    stream.reschedule();
    any = true;
  });
  return any;
}

// ---- The disk
// ----------------------------------------------------------------------------------------------------------

bool DiskThread::submit_operations() {
  bool any = false;
  while (!operations_->empty()) {
    auto* const stream = static_cast<ServedStream*>(scheduler_.next());
    if (stream == nullptr) break;
    any = true;
    if (!stream->take_credit()) {
      condemn(stream->connection(), "return of a slot that was not lent");
      continue;
    }
    Operation& operation = operations_->take();
    stream->prepare(operation, shm::now_ns());
    hand_over(operation);
    stream->reschedule();
  }
  return any;
}

void DiskThread::hand_over(Operation& operation) {
  operation.submitted_ns = shm::now_ns();
  const auto begun = describe(operation);
  in_flight_.begin(operation.index, begun.operation, begun.recording, begun.offset, begun.since_ns);
  engine_->submit(operation);
}

bool DiskThread::reap_completions() {
  std::array<Completion, kMaxOperations> completions;
  const std::size_t count = engine_->reap(completions);
  for (std::size_t i = 0; i < count; ++i) complete(completions[i]);
  if (auto note = engine_->take_note()) tell(EngineNote{std::move(*note)});
  if (count > 0) {
    finish_detaching();
    update_activity();
  }
  return count > 0;
}

void DiskThread::complete(const Completion& completion) {
  Operation& operation = *completion.operation;
  ServedStream& stream = *operation.stream;
  const std::uint64_t duration_ns = shm::now_ns() - operation.submitted_ns;
  const auto ended = describe(operation);
  in_flight_.end(operation.index);
  const bool is_open = operation.kind == Operation::Kind::kOpen;
  (is_open ? statistics_.open_time : statistics_.read_time).record_ns(duration_ns);
  if (duration_ns >= options_.slow_operation_ns) tell(SlowOperationEnded{ended, duration_ns});
  if (goes_on(operation, completion.result)) {
    stream.on_progress(operation);
    hand_over(operation);
    return;
  }
  if (is_open) statistics_.opens.add();
  stream.on_finished(operation);
  stream.reschedule();
}

// Accounts for what the engine returned. True: the operation is not done, submit it again. A read goes on
// after a short read, unless its stream has been closed; EINTR and, for a while, EAGAIN are tried again.
bool DiskThread::goes_on(Operation& operation, std::int64_t result) {
  if (result == -EINTR) return true;
  if (result == -EAGAIN && operation.retries++ < kMaxRetries) return true;
  if (result < 0) {
    operation.error = static_cast<int>(-result);
    return false;
  }
  if (operation.kind == Operation::Kind::kOpen || result == 0) return false;
  operation.done += static_cast<std::uint32_t>(result);
  assert(operation.done <= operation.length);
  return operation.done < operation.length && operation.stream->is_reading();
}

// ---- Sleep
// -------------------------------------------------------------------------------------------------------------

// S1 to S4 of shm/wake.h, for all connections at once.
void DiskThread::sleep() {
  if (spin()) return;
  for (Connection* const connection : connections_) connection->sleeper().announce();
  if (!take_all()) {
    statistics_.sleeps.add();
    engine_->wait(muted_ > 0 ? kMutedPollMs : -1);
    doorbells_.drain([this](std::uint32_t id) {
      if (id != kMailDoorbell && by_doorbell_[id] != nullptr) on_ring(*by_doorbell_[id]);
    });
    if (muted_ > 0) unmute_all();
  }
  // Before anything is looked at again: who skips its ring because it rang before must be seen now.
  for (Connection* const connection : connections_) connection->sleeper().retire();
}

// Looks for work for a while before the thread sleeps: for as long as a sleep and a wake would take, if that
// was worth it lately.
bool DiskThread::spin() {
  // With windows full the clients have enough to go on with, and ring when half of a window has come back.
  if (spin_ns_ == 0 || connections_.size() > kMaxSpinConnections || scheduler_.has_starved()) return false;
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
  doorbells_.remove(connection.doorbell());
}

// After each pause of kMutedPollMs the muted doorbells get another chance, of one ring.
void DiskThread::unmute_all() {
  for (std::uint32_t id = 1; id < by_doorbell_.size(); ++id) {
    Connection* const connection = by_doorbell_[id];
    if (connection == nullptr || !connection->is_muted || !doorbells_.add(connection->doorbell(), id))
      continue;
    connection->is_muted = false;
    --muted_;
  }
}

void DiskThread::update_activity() {
  const bool active = statistics_.streams_open.value() != 0;
  if ((active_.load(std::memory_order_relaxed) != 0) == active) return;
  active_.store(active ? 1 : 0,
                std::memory_order_seq_cst);  // pairs with the control thread's Sleeper::announce()
  if (active && heartbeat_.should_ring()) ring(control_wakeup_);
}

}  // namespace nvr::daemon
