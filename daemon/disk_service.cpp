#include "daemon/disk_service.h"

#include <errno.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "daemon/error_descriptor.h"
#include "daemon/page_cache.h"
#include "shm/clock.h"
#include "shm/command.h"
#include "shm/step.h"

namespace nvr::daemon {
namespace {

constexpr std::uint32_t kMaxRetries = 16;  // of EAGAIN, which XFS may answer for a while
// Together at most: while they are done nobody has the first chunk of one of them.
constexpr std::uint32_t kMostOpens = 8;

shm::OldestOperation describe(const Operation& operation) {
  return {.operation = operation.kind == Operation::Kind::kOpen ? shm::DiskOperation::kOpen
                                                                : shm::DiskOperation::kRead,
          .since_ns = operation.submitted_ns,
          .recording = operation.recording.composite(),
          .offset = operation.offset + operation.done};
}

std::optional<VisitPlan> make_plan(const DiskService::Setup& setup) {
  if (!setup.is_rotational) return std::nullopt;
  return VisitPlan{.visits = Visits(setup.fifo ? Visits::Order::kFifo : Visits::Order::kSweep),
                   .new_streams_first = !setup.fifo};
}

std::uint64_t slots_of(const Connection& connection) {
  return std::uint64_t{connection.geometry().streams} * connection.geometry().slots;
}

}  // namespace

DiskService::DiskService(Engine& engine, DiskStatistics& statistics, InFlight& in_flight, Setup setup,
                         Tell tell)
    : engine_(engine),
      statistics_(statistics),
      in_flight_(in_flight),
      setup_(setup),
      tell_(std::move(tell)),
      operations_(kMaxOperations),
      plan_(make_plan(setup)),
      lanes_(setup.reserve_percent, kStuckMs * shm::kMillisecond, !setup.fifo),
      context_{scheduler_, operations_, engine_, statistics_, growth_, plan_ ? &*plan_ : nullptr} {}

void DiskService::attach(Connection& connection) {
  connection.attach(context_);
  connections_.push_back(&connection);
  statistics_.slots.add(slots_of(connection));
  NVR_STEP("daemon.attached");
}

void DiskService::detach(Connection& connection) {
  connection.condemn();
  NVR_STEP("daemon.leaving");
  connection.is_leaving = true;
  ++leaving_;
  finish_detaching();
}

// Lets go of the connections that wait to leave and of which the engine holds nothing any more (invariant 5).
void DiskService::finish_detaching() {
  if (leaving_ == 0) return;
  std::erase_if(connections_, [this](Connection* connection) {
    if (!connection->is_leaving || connection->has_operations_in_flight()) return false;
    --leaving_;
    statistics_.slots.subtract(slots_of(*connection));
    connection->detach();
    NVR_STEP("daemon.detached");
    tell_(Detached{connection});
    return true;
  });
}

void DiskService::condemn(Connection& connection, const char* offence) {
  connection.condemn();
  tell_(Violation{.connection = &connection, .offence = offence});
}

// ---- Clients
// ---------------------------------------------------------------------------------------------------------

bool DiskService::take_commands() {
  bool any = false;
  for (Connection* const connection : connections_) {
    if (connection->is_condemned()) continue;
    std::optional<const char*> offence;
    const bool kept = connection->commands().take([&](const shm::Command& command) {
      NVR_STEP("daemon.command_taken");
      any = true;
      connection->rings_without_work = 0;
      offence = shm::offence_of(command, connection->geometry().streams);
      if (!offence) take_command(connection->stream(command.stream), command, offence);
      return !offence.has_value();
    });
    if (kept) continue;
    condemn(*connection, offence.value_or("command ring moved further than it is long"));
    any = true;
  }
  return any;
}

void DiskService::take_command(ServedStream& stream, const shm::Command& command,
                               std::optional<const char*>& offence) {
  if (command.opcode == shm::Opcode::kClose) {
    offence = stream.close(command.generation);
    return;
  }
  if (command.opcode == shm::Opcode::kFinish) {
    offence = stream.finish(command.generation, shm::now_ns());
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
bool DiskService::take_credit() {
  bool any = false;
  scheduler_.for_each_starved([&](Schedulable& schedulable) {
    auto& stream = static_cast<ServedStream&>(schedulable);
    if (!stream.take_credit()) {
      condemn(stream.connection(), "return of a slot that was not lent");
    } else if (stream.has_credit()) {
      Scheduler::remove(stream);
      stream.reschedule(shm::now_ns());
    } else {
      return;
    }
    any = true;
  });
  return any;
}

// Streams that follow a recording which is still being written. A look does not wait for the disk; one a
// call.
bool DiskService::look_for_growth() {
  if (growth_.due_ns() == 0) return false;
  const std::uint64_t now_ns = shm::now_ns();
  Follower* const next = growth_.next(now_ns);
  if (next == nullptr) return false;
  static_cast<ServedStream&>(*next).look_for_growth(now_ns);
  return true;
}

// ---- The disk
// ----------------------------------------------------------------------------------------------------------

// The engine's depth is for operations that come and go. One that is stuck, in the bad sector of a disk that
// is otherwise well, must not take the others' place for as long as the drive tries.
bool DiskService::has_room() const {
  if (operations_.empty()) return false;
  const std::uint32_t others = submitted_ - lanes_.size();  // that the plan does not bound
  if (others < engine_.depth()) return true;
  const std::uint64_t now = shm::now_ns();
  const std::uint64_t stuck_ns = kStuckMs * shm::kMillisecond;
  return now > stuck_ns &&
         others - std::min(others, in_flight_.count_older_than(now - stuck_ns)) < engine_.depth();
}

// One read at a time, and what has completed is shown before the next: what is in memory the engine reads at
// once, and its reader should find it in the processor's cache. Opens, which copy nothing, go together.
bool DiskService::submit_operation() {
  if (plan_) return submit_by_plan(shm::now_ns());
  is_full_ = !has_room() && scheduler_.has_queued();
  if (is_full_) return false;
  const std::uint64_t now_ns = shm::now_ns();
  const bool served = serve(scheduler_.next(now_ns), Operation::Lane::kNone, now_ns);
  for (std::uint32_t opens = 1; opens < kMostOpens && has_room(); ++opens)
    if (!serve(scheduler_.next_of(Scheduler::Place::kNew, now_ns), Operation::Lane::kNone, now_ns)) break;
  return served;
}

// A spinning disk: first what keeps it busy, new streams between two segments; and then, before the engine
// may wait for any of it, what is in memory.
bool DiskService::submit_by_plan(std::uint64_t now_ns) {
  const bool is_wanted = !plan_->visits.empty();
  is_full_ = false;
  if (operations_.empty()) {
    is_full_ = is_wanted || scheduler_.has_queued();
    return false;
  }
  if (const Schedulable* const first = scheduler_.first_new()) {
    const bool has_begun = static_cast<const ServedStream*>(first)->is_reading();
    if (lanes_.has_room_for_new(now_ns, has_begun, is_wanted))
      return serve(scheduler_.next_of(Scheduler::Place::kNew, now_ns), Operation::Lane::kNew, now_ns);
    is_full_ = true;
  }
  const bool submitted = is_wanted && lanes_.has_room_for_segment(now_ns) && submit_segment(now_ns);
  is_full_ |= is_wanted && !submitted;
  if (!has_room()) {
    is_full_ |= scheduler_.has_queued();
    return submitted;
  }
  return serve(scheduler_.next_of(Scheduler::Place::kRead, now_ns), Operation::Lane::kNone, now_ns) ||
         submitted;
}

bool DiskService::submit_segment(std::uint64_t now_ns) {
  while (auto* const visitor = plan_->visits.next(now_ns, plan_->model.visit_ns())) {
    auto& stream = static_cast<ServedStream&>(*visitor);
    Operation& operation = operations_.take();
    if (!lanes_.is_stuck_with(stream, now_ns) && stream.prepare_segment(operation)) {
      lanes_.enter(operation, Operation::Lane::kSegment);
      hand_over(operation, now_ns);
      stream.reschedule(now_ns);
      return true;
    }
    Visits::remove(stream);  // it comes again when what is stuck has come, or its reader has made room
    operations_.give_back(operation);
  }
  return false;
}

// The stream's turn has come.
bool DiskService::serve(Schedulable* next, Operation::Lane lane, std::uint64_t now_ns) {
  if (next == nullptr) return false;
  auto& stream = static_cast<ServedStream&>(*next);
  if (!stream.take_credit()) {
    condemn(stream.connection(), "return of a slot that was not lent");
    return true;
  }
  Operation& operation = operations_.take();
  stream.prepare(operation, now_ns);
  if (lane != Operation::Lane::kNone) lanes_.enter(operation, lane);
  hand_over(operation, now_ns);
  stream.reschedule(now_ns);
  return true;
}

void DiskService::probe_if_stuck() {
  if (!wants_to_probe()) return;
  const std::uint64_t now_ns = shm::now_ns();
  const std::uint64_t oldest_ns = in_flight_.oldest().since_ns;
  if (oldest_ns != 0 && now_ns >= oldest_ns + kStuckMs * shm::kMillisecond) probe_->start_if_due(now_ns);
}

void DiskService::hand_over(Operation& operation, std::uint64_t now_ns) {
  operation.submitted_ns = now_ns;
  operation.asks_disk = operation.kind == Operation::Kind::kPrefetch;
  const auto begun = describe(operation);
  in_flight_.begin(operation.index, begun.operation, begun.recording, begun.offset, begun.since_ns);
  ++submitted_;
  if (plan_ && !operation.only_memory) io_priority_.use(operation.priority);
  NVR_STEP("daemon.about_to_submit");
  engine_.submit(operation);
}

bool DiskService::reap_completions() {
  std::array<Completion, kMaxOperations> completions;
  const std::size_t count = engine_.reap(completions);
  for (std::size_t i = 0; i < count; ++i) complete(completions[i]);
  if (auto note = engine_.take_note()) tell_(EngineNote{std::move(*note)});
  if (count > 0) finish_detaching();
  if (scheduler_.first_new() == nullptr) engine_.settle();
  return count > 0;
}

void DiskService::complete(const Completion& completion) {
  Operation& operation = *completion.operation;
  if (probe_ && probe_->owns(operation))
    return probe_->on_completion(operation, completion.result, shm::now_ns());
  ServedStream& stream = *operation.stream;
  const std::uint64_t now_ns = shm::now_ns();
  const std::uint64_t duration_ns = now_ns - operation.submitted_ns;
  NVR_STEP("daemon.completed");
  --submitted_;
  in_flight_.end(operation.index);
  const bool is_open = operation.kind == Operation::Kind::kOpen;
  (is_open ? statistics_.open_time : statistics_.read_time).record_ns(duration_ns);
  if (!is_open && completion.result != -EAGAIN)
    (operation.asks_disk ? statistics_.disk_time : statistics_.memory_time).record_ns(duration_ns);
  if (!is_open && completion.result > 0 && operation.asks_disk) statistics_.answered_ns.set(now_ns);
  const bool is_shorter = try_shorter(operation, completion.result);
  report_if_remarkable(operation, is_shorter ? 0 : completion.result, duration_ns);
  if (is_shorter || goes_on(operation, completion.result)) {
    stream.on_progress(operation);
    hand_over(operation, now_ns);
    return;
  }
  if (operation.lane != Operation::Lane::kNone) {
    lanes_.leave(operation, now_ns, plan_->model);
    show_plan();
  }
  if (is_open) statistics_.opens.add();
  if (!is_open && probe_ && completion.result > 0) probe_->remember(operation.recording);
  stream.on_finished(operation);
  stream.reschedule(now_ns);
}

// Tells of what was slow, and of what the disk failed at.
void DiskService::report_if_remarkable(const Operation& operation, std::int64_t result,
                                       std::uint64_t duration_ns) {
  const int error = result < 0 ? static_cast<int>(-result) : 0;
  // What could not be brought in ahead will be read for itself, and meets the error at its exact place.
  const bool has_failed = is_disk_error(error) && operation.kind != Operation::Kind::kPrefetch;
  const bool is_slow = duration_ns >= setup_.slow_operation_ns;
  if (!is_slow && !has_failed) return;
  const Connection& connection = operation.stream->connection();
  tell_(OperationReport{.operation = describe(operation),
                        .length = operation.kind == Operation::Kind::kOpen
                                      ? 0
                                      : std::uint64_t{operation.length} - operation.done,
                        .duration_ns = duration_ns,
                        .is_slow = is_slow,
                        .error = is_disk_error(error) ? error : 0,
                        .connection = connection.id(),
                        .peer = connection.peer()});
}

// For the status.
void DiskService::show_plan() {
  const DiskModel& model = plan_->model;
  statistics_.visits.set(plan_->visits.count());
  statistics_.positioning_ns.set(model.positioning_ns());
  statistics_.disk_bytes_per_s.set(model.bytes_per_s());
  statistics_.visit_bytes.set(model.visit_bytes());
  statistics_.visit_ns.set(model.visit_ns());
  statistics_.efficiency_ppm.set(static_cast<std::uint64_t>(model.efficiency() * 1e6));
  statistics_.ahead_bytes.set(plan_->ahead_bytes);
}

// One block that cannot be read fails all of a read past the page cache. True: the operation asks for less
// now, so that what lies before that block is read, and the block is known.
bool DiskService::try_shorter(Operation& operation, std::int64_t result) {
  if (operation.kind != Operation::Kind::kRead || result >= 0 || !is_disk_error(static_cast<int>(-result)) ||
      !operation.stream->is_reading())
    return false;
  const std::uint32_t block = block_of(*operation.file);
  return block > 0 && operation.shorten(block);
}

// Accounts for what the engine returned. True: the operation is not done, submit it again. A read goes on
// after a short read, unless its stream has been closed; EINTR and, for a while, EAGAIN are tried again.
bool DiskService::goes_on(Operation& operation, std::int64_t result) {
  if (result == -EINTR) return true;
  if (result == -EAGAIN && !operation.only_memory && operation.retries++ < kMaxRetries) return true;
  if (result < 0) {
    operation.error = static_cast<int>(-result);
    return false;
  }
  if (operation.kind == Operation::Kind::kOpen || result == 0) return false;
  operation.done += static_cast<std::uint32_t>(result);
  assert(operation.done <= operation.length);
  return operation.done < operation.length && operation.stream->is_reading();
}

}  // namespace nvr::daemon
