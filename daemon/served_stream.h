// One stream of one connection, as the disk thread serves it: from OPEN through chunks to the one terminal,
// and the life of its slots. Disk thread only.
//
// What always holds:
//   1. A slot is free, in flight (handed to the engine), or lent (published and not returned); `free_` and
//   `lent_`
//      are disjoint, and what is in neither is in flight. Only a free slot is handed to the engine, only a
//      lent one can come back.
//   2. Chunks are published in file order; the terminal last, once, when nothing of the generation is in
//   flight.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "daemon/engine.h"
#include "daemon/growth.h"
#include "daemon/operation.h"
#include "daemon/read_ahead.h"
#include "daemon/scheduler.h"
#include "daemon/statistics.h"
#include "daemon/stream_facts.h"
#include "daemon/visit_plan.h"
#include "shm/protocol.h"
#include "shm/ring.h"
#include "shm/wake.h"

namespace nvr::daemon {

class Connection;

// What the disk thread's streams share.
struct DiskContext {
  Scheduler& scheduler;
  OperationPool& operations;
  Engine& engine;
  DiskStatistics& statistics;
  GrowthWatch& growth;
  VisitPlan* plan;  // of a spinning disk, else null: reads go to the disk as they come
};

class ServedStream : public Schedulable, public Visitor, public Follower {
 public:
  // `connection` outlives the stream. `context` is given at attach, before any other call.
  ServedStream(Connection& connection, std::uint32_t index);
  void attach(DiskContext& context) { context_ = &context; }

  // Commands, already judged by offence_of(). They return what rule of the protocol is broken in the stream's
  // state.
  [[nodiscard]] std::optional<const char*> open(const shm::Command& command, std::uint64_t now_ns);
  [[nodiscard]] std::optional<const char*> close(std::uint32_t generation);
  [[nodiscard]] std::optional<const char*> finish(std::uint32_t generation, std::uint64_t now_ns);
  // The connection ends: as close(), with nothing published any more.
  void abandon();

  // Takes back the slots that the client has returned. False: it returned one that was not lent.
  [[nodiscard]] bool take_credit();
  // Puts the stream where it now belongs in the scheduler.
  void reschedule(std::uint64_t now_ns);

  // The stream has read all there was, and its time to look for more has come.
  void look_for_growth(std::uint64_t now_ns);

  // The stream's turn has come: makes `operation` its open, its next read, or what is brought in before its
  // first.
  void prepare(Operation& operation, std::uint64_t now_ns);
  // A visit of the stream is under way: makes `operation` its next segment. False: it has none, now.
  [[nodiscard]] bool prepare_segment(Operation& operation);
  // Part of a read has arrived, and the rest comes at memory's speed: shows what is complete to a reader that
  // looks. One that sleeps is woken once, by what follows.
  void on_copied(Operation& operation, std::uint32_t done);
  // Part of a read has arrived, the operation goes on: publishes what is complete.
  void on_progress(Operation& operation);
  // The engine is done with `operation`; it goes back to the pool, now or when its turn in the order of the
  // file comes.
  void on_finished(Operation& operation);

  [[nodiscard]] bool is_reading() const { return state_ == State::kReading; }
  [[nodiscard]] bool has_credit() const { return free_ != 0; }
  [[nodiscard]] bool is_closed_in_flight() const { return state_ == State::kEnding && in_flight_ > 0; }
  [[nodiscard]] std::uint32_t in_flight() const { return in_flight_; }
  [[nodiscard]] Connection& connection() const { return *connection_; }

  // Any thread.
  [[nodiscard]] const StreamFacts& facts() const { return facts_; }

 private:
  using State = StreamState;

  void begin_generation(const shm::Command& command, std::uint64_t now_ns);
  [[nodiscard]] std::optional<shm::Descriptor> take_place_for_file();
  [[nodiscard]] std::uint32_t allowed_in_flight() const;
  [[nodiscard]] bool reads_ahead() const;
  [[nodiscard]] bool can_read() const;
  void wish_for_visit(std::uint64_t now_ns);
  [[nodiscard]] std::uint64_t bytes_ahead() const;
  void account_ahead();
  void account_waiting();
  void count_open(Code result);
  void account_end();
  [[nodiscard]] StreamWait waits_for() const;
  void show(std::uint64_t now_ns);
  void assign(Operation& operation);
  void prepare_read(Operation& operation, std::uint32_t most_slots);
  void on_missing(Operation& operation);
  void on_opened(Operation& operation);
  [[nodiscard]] bool waits_for_growth() const;
  void put_complete_slots(Operation& operation, std::uint32_t done);
  void publish_in_order();
  void put(const shm::Descriptor& content);
  void publish();
  void end_with(const shm::Descriptor& terminal);
  void publish_terminal_if_settled();
  void release_slots(Operation& operation, std::uint32_t first);

  Connection* connection_;
  DiskContext* context_ = nullptr;
  std::uint32_t index_;

  shm::DescriptorProducer descriptors_;
  shm::ReturnConsumer returns_;
  shm::Waker reader_;  // the client thread that waits for this stream
  std::uint64_t free_;
  std::uint64_t lent_ = 0;

  State state_ = State::kIdle;
  std::uint32_t generation_;  // of the last OPEN
  shm::Command command_;
  std::uint64_t opened_ns_ = 0;  // when OPEN was taken
  bool has_place_ = false;       // among its user's open files, from when it is queued
  std::unique_ptr<SampleFile> file_;
  std::uint64_t next_ = 0;       // offset of the next read
  std::uint32_t ramp_ = 1;       // slots that the next read may fill: 1, 4, 16, ... Engine::read_slots()
  std::uint32_t in_flight_ = 0;  // operations with the engine
  std::uint32_t reading_ = 0;    // of them those that read
  bool first_published_ = false;
  bool opened_ = false;        // OPENED has been published
  bool must_publish_ = false;  // chunks have been put that publish() has not been called for
  boost::intrusive::list<Operation, boost::intrusive::constant_time_size<false>> reads_;  // in file order
  Growth growth_;                  // goes on only while a growing file is followed
  bool is_told_finished_ = false;  // FINISH has been taken
  ReadAhead ahead_;
  std::uint64_t accounted_ahead_ = 0;  // in the plan's sum
  bool accounted_waiting_ = false;     // in the statistics
  std::uint64_t visit_ramp_ = 0;  // bytes that the next visit may have: a stream of a moment wants no 8 MiB
  shm::Descriptor terminal_;
  StreamFacts facts_;
};

}  // namespace nvr::daemon
