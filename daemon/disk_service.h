// The disk thread's work, without the thread: serves connections, a step at a time.
//
//   commands -> scheduler -> engine -> slots and descriptors
//
// It never sleeps and never waits for a client. Whoever runs it sleeps when no step finds anything to do: the
// disk thread on the engine and the doorbells; a test not at all. One thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "daemon/connection.h"
#include "daemon/disk_messages.h"
#include "daemon/engine.h"
#include "daemon/in_flight.h"
#include "daemon/operation.h"
#include "daemon/scheduler.h"
#include "daemon/statistics.h"

namespace nvr::daemon {

class DiskService {
 public:
  using Tell = std::function<void(FromDisk)>;
  // Everything given outlives the service. `tell` hears of Detached, Violation, SlowOperationEnded,
  // EngineNote.
  DiskService(Engine& engine, DiskStatistics& statistics, InFlight& in_flight,
              std::uint64_t slow_operation_ns, Tell tell);
  DiskService(const DiskService&) = delete;
  DiskService& operator=(const DiskService&) = delete;

  void attach(Connection& connection);
  // Nothing is taken from the connection or published to it any more. Detached is told once the engine holds
  // nothing of it.
  void detach(Connection& connection);
  [[nodiscard]] const std::vector<Connection*>& connections() const { return connections_; }

  // The steps. Each says whether it found something to do.
  bool take_commands();
  bool take_credit();
  bool submit_operations();
  bool reap_completions();

  // Does any stream wait for room on the disk? Then come again after kStuckMs, though nothing has happened.
  static constexpr int kStuckMs = 500;
  [[nodiscard]] bool waits_for_room() const { return is_full_; }
  // Does any stream wait for its reader to give slots back?
  [[nodiscard]] bool has_starved() const { return scheduler_.has_starved(); }

 private:
  [[nodiscard]] bool has_room() const;
  void finish_detaching();
  void condemn(Connection& connection, const char* offence);
  void take_command(ServedStream& stream, const shm::Command& command, std::optional<const char*>& offence);
  void hand_over(Operation& operation);
  void complete(const Completion& completion);
  [[nodiscard]] bool goes_on(Operation& operation, std::int64_t result);

  Engine& engine_;
  DiskStatistics& statistics_;
  InFlight& in_flight_;
  std::uint64_t slow_operation_ns_;
  Tell tell_;
  Scheduler scheduler_;
  OperationPool operations_;
  DiskContext context_;
  std::vector<Connection*> connections_;  // attached
  std::uint32_t leaving_ = 0;             // connections that wait for the engine
  std::uint32_t submitted_ = 0;           // operations that are with the engine
  bool is_full_ = false;                  // streams were left waiting for room
};

}  // namespace nvr::daemon
