#include "daemon/disk_service.h"

#include <errno.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "shm/clock.h"
#include "shm/command.h"

namespace nvr::daemon {
namespace {

constexpr std::uint32_t kMaxRetries = 16;  // of EAGAIN, which XFS may answer for a while

shm::OldestOperation describe(const Operation& operation) {
  return {.operation = operation.kind == Operation::Kind::kOpen ? shm::DiskOperation::kOpen
                                                                : shm::DiskOperation::kRead,
          .since_ns = operation.submitted_ns,
          .recording = operation.recording.composite(),
          .offset = operation.offset + operation.done};
}

}  // namespace

DiskService::DiskService(Engine& engine, DiskStatistics& statistics, InFlight& in_flight,
                         std::uint64_t slow_operation_ns, Tell tell)
    : engine_(engine),
      statistics_(statistics),
      in_flight_(in_flight),
      slow_operation_ns_(slow_operation_ns),
      tell_(std::move(tell)),
      operations_(kMaxOperations),
      context_{scheduler_, operations_, engine_, statistics_} {}

void DiskService::attach(Connection& connection) {
  connection.attach(context_);
  connections_.push_back(&connection);
}

void DiskService::detach(Connection& connection) {
  connection.condemn();
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
      stream.connection().rings_without_work = 0;
      stream.reschedule();
    } else {
      return;
    }
    any = true;
  });
  return any;
}

// ---- The disk
// ----------------------------------------------------------------------------------------------------------

// The engine's depth is for operations that come and go. One that is stuck, in the bad sector of a disk that
// is otherwise well, must not take the others' place for as long as the drive tries.
bool DiskService::has_room() const {
  if (operations_.empty()) return false;
  if (submitted_ < engine_.depth()) return true;
  const std::uint64_t now = shm::now_ns();
  const std::uint64_t stuck_ns = kStuckMs * shm::kMillisecond;
  return now > stuck_ns && submitted_ - in_flight_.count_older_than(now - stuck_ns) < engine_.depth();
}

bool DiskService::submit_operations() {
  bool any = false;
  is_full_ = false;
  for (;;) {
    if (!has_room()) {
      is_full_ = scheduler_.has_queued();
      break;
    }
    auto* const stream = static_cast<ServedStream*>(scheduler_.next());
    if (stream == nullptr) break;
    any = true;
    if (!stream->take_credit()) {
      condemn(stream->connection(), "return of a slot that was not lent");
      continue;
    }
    Operation& operation = operations_.take();
    stream->prepare(operation, shm::now_ns());
    hand_over(operation);
    stream->reschedule();
  }
  return any;
}

void DiskService::hand_over(Operation& operation) {
  operation.submitted_ns = shm::now_ns();
  const auto begun = describe(operation);
  in_flight_.begin(operation.index, begun.operation, begun.recording, begun.offset, begun.since_ns);
  ++submitted_;
  engine_.submit(operation);
}

bool DiskService::reap_completions() {
  std::array<Completion, kMaxOperations> completions;
  const std::size_t count = engine_.reap(completions);
  for (std::size_t i = 0; i < count; ++i) complete(completions[i]);
  if (auto note = engine_.take_note()) tell_(EngineNote{std::move(*note)});
  if (count > 0) {
    finish_detaching();
  }
  return count > 0;
}

void DiskService::complete(const Completion& completion) {
  Operation& operation = *completion.operation;
  ServedStream& stream = *operation.stream;
  const std::uint64_t duration_ns = shm::now_ns() - operation.submitted_ns;
  const auto ended = describe(operation);
  --submitted_;
  in_flight_.end(operation.index);
  const bool is_open = operation.kind == Operation::Kind::kOpen;
  (is_open ? statistics_.open_time : statistics_.read_time).record_ns(duration_ns);
  if (duration_ns >= slow_operation_ns_) tell_(SlowOperationEnded{ended, duration_ns});
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
bool DiskService::goes_on(Operation& operation, std::int64_t result) {
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

}  // namespace nvr::daemon
