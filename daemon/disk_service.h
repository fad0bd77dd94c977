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
#include "daemon/disk_probe.h"
#include "daemon/engine.h"
#include "daemon/growth.h"
#include "daemon/in_flight.h"
#include "daemon/io_priority.h"
#include "daemon/lanes.h"
#include "daemon/operation.h"
#include "daemon/scheduler.h"
#include "daemon/statistics.h"

namespace nvr::daemon {

class DiskService {
 public:
  using Tell = std::function<void(FromDisk)>;
  struct Setup {
    std::uint64_t slow_operation_ns = UINT64_MAX;
    bool is_rotational = false;         // visits (visit_plan.h), or reads as they come
    bool fifo = false;                  // visits as they are wanted, to measure the sweep against
    std::uint32_t reserve_percent = 0;  // of a spinning disk's time, for others
  };
  // Everything given outlives the service. `tell` hears of Detached, Violation, OperationReport,
  // EngineNote.
  DiskService(Engine& engine, DiskStatistics& statistics, InFlight& in_flight, Setup setup, Tell tell);
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
  bool submit_operation();
  bool reap_completions();
  bool look_for_growth();

  // For tests: when nothing is open, nothing may be in use.
  [[nodiscard]] std::size_t operations_in_use() const { return operations_.in_use(); }

  // Does any stream wait for room on the disk? Then come again after kStuckMs, though nothing has happened.
  static constexpr int kStuckMs = 500;
  [[nodiscard]] bool waits_for_room() const { return is_full_; }
  // When to come again, though nothing has happened, since the disk is left to others until then; in the
  // past: not so.
  [[nodiscard]] std::uint64_t paused_until_ns() const {
    return plan_ && !plan_->visits.empty() ? lanes_.paused_until_ns() : 0;
  }
  // When to come again, though nothing has happened, to look whether a recording has grown; 0: never.
  [[nodiscard]] std::uint64_t growth_due_ns() const { return growth_.due_ns(); }
  // Does any stream wait for its reader to give slots back?
  [[nodiscard]] bool has_starved() const { return scheduler_.has_starved(); }

  // From now on the disk is probed while something is stuck on it (disk_probe.h). Precondition: the engine
  // goes on meanwhile, and reads past the page cache.
  void enable_probes() { probe_.emplace(engine_, operations_, statistics_); }
  // To be called in every round. While it wants to be called again, come again after kStuckMs.
  void probe_if_stuck();
  [[nodiscard]] bool wants_to_probe() const { return probe_ && submitted_ > 0; }

 private:
  [[nodiscard]] bool has_room() const;
  [[nodiscard]] bool submit_by_plan(std::uint64_t now_ns);
  [[nodiscard]] bool submit_segment(std::uint64_t now_ns);
  [[nodiscard]] bool serve(Schedulable* next, Operation::Lane lane, std::uint64_t now_ns);
  void finish_detaching();
  void condemn(Connection& connection, const char* offence);
  void take_command(ServedStream& stream, const shm::Command& command, std::optional<const char*>& offence);
  void hand_over(Operation& operation, std::uint64_t now_ns);
  void complete(const Completion& completion);
  void report_if_remarkable(const Operation& operation, std::int64_t result, std::uint64_t duration_ns);
  void show_plan();
  [[nodiscard]] static bool try_shorter(Operation& operation, std::int64_t result);
  [[nodiscard]] bool goes_on(Operation& operation, std::int64_t result);

  Engine& engine_;
  DiskStatistics& statistics_;
  InFlight& in_flight_;
  Setup setup_;
  Tell tell_;
  Scheduler scheduler_;
  GrowthWatch growth_;
  OperationPool operations_;
  std::optional<VisitPlan> plan_;  // of a spinning disk
  Lanes lanes_;
  IoPriority io_priority_;
  DiskContext context_;
  std::optional<DiskProbe> probe_;
  std::vector<Connection*> connections_;  // attached
  std::uint32_t leaving_ = 0;             // connections that wait for the engine
  std::uint32_t submitted_ = 0;           // operations that are with the engine
  bool is_full_ = false;                  // streams were left waiting for room
};

}  // namespace nvr::daemon
