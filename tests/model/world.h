// One state of the model, and the steps that lead out of it: disk.cpp has the daemon's, client.cpp and
// reader.cpp the client's, world.cpp memory, who may step, and what is wrong where nobody can.
#pragma once

#include <cstddef>
#include <string>

#include "tests/model/scenario.h"
#include "tests/model/state.h"

namespace nvr::model {

class World {
 public:
  World(const Scenario& scenario, Mutant mutant, const State& state)
      : scenario_(scenario), mutant_(mutant), s_(state) {}

  // Puts everybody where they start.
  void set_up();

  // May this thread take a step now? Not if it has ended or is dead, sleeps, or wants a lock that is taken.
  [[nodiscard]] bool is_ready(ThreadId id) const;
  // Has its next step two outcomes?
  [[nodiscard]] bool has_choice(ThreadId id) const;
  void step(ThreadId id, bool choice);
  [[nodiscard]] Step at(ThreadId id) const;

  // What happens by itself.
  [[nodiscard]] bool can_drain(ThreadId id) const { return s_.buffers[id].size > 0; }
  void drain(ThreadId id);
  // The disk: operation 0 is the open, those above are the reads.
  [[nodiscard]] bool can_complete(Byte stream, Byte operation) const;
  void complete(Byte stream, Byte operation);
  [[nodiscard]] bool can_kill_daemon() const;
  void kill_daemon();
  [[nodiscard]] bool can_kill_client() const;
  void kill_client();

  // Nothing can happen any more: what is wrong with that, or null.
  [[nodiscard]] const char* wrong_at_rest() const;

  [[nodiscard]] const State& state() const { return s_; }
  [[nodiscard]] const char* failure() const { return failure_; }

 private:
  // ---- world.cpp
  [[nodiscard]] bool is_client(ThreadId id) const { return id >= kReader; }
  [[nodiscard]] bool is_process_dead(ThreadId id) const;
  [[nodiscard]] bool is_private(ThreadId id) const;
  [[nodiscard]] bool is_unblocked(const ClientThread& thread) const;
  [[nodiscard]] const char* lost_wake() const;
  [[nodiscard]] Byte load(ThreadId id, Byte word) const;
  void store_seq_cst(ThreadId id, Byte word, Byte value);
  void store_buffered(ThreadId id, Byte word, Byte value);
  // seq_cst, but release only in a world with this mutant.
  void store(ThreadId id, Byte word, Byte value, Mutant weakened);
  void unlock(ThreadId id, Byte word);
  void drain_all(ThreadId id);
  void normalise();
  void normalise_epoch(Byte word, Byte* owner, Byte* rung_for);
  [[nodiscard]] Byte announced(Byte epoch) const;
  [[nodiscard]] Byte retired(Byte epoch) const;
  void fail(const char* what) {
    if (failure_ == nullptr) failure_ = what;
  }

  // ---- disk.cpp
  void control_step();
  void disk_step();
  void take_mail();
  void take_command();
  void take_credit(Byte stream);
  void next_starved();
  void submit_next();
  void submit(Byte stream);
  void reap();
  void on_opened(Byte stream);
  void publish_in_order(Byte stream);
  void reschedule(Byte stream);
  void end_with(Byte stream, Kind terminal, Step back);
  void settle(Byte stream, Step back);
  void put(Byte stream, Kind kind, Byte slot, Byte index);
  void publish(Byte stream, Step back);
  void finish_detaching();
  void disk_sleep_step();
  void publish_step();
  [[nodiscard]] Byte in_flight(Byte stream) const;

  // ---- client.cpp
  void client_step(ThreadId id, bool choice);
  bool user_step(ThreadId id, bool choice);
  bool channel_step(ThreadId id);
  bool post_step(ThreadId id);
  bool credit_step(ThreadId id);
  bool dispatch_step(ThreadId id);
  bool stop_step(ThreadId id);
  ClientThread& client(ThreadId id) { return s_.clients[id - kReader]; }
  [[nodiscard]] const ClientThread& client(ThreadId id) const { return s_.clients[id - kReader]; }
  Reader& reader(const ClientThread& thread) { return s_.streams[thread.stream].reader; }
  static void call(ClientThread& thread, Step step, Step back);
  static void give(ClientThread& thread, bool result);
  static void leave(ClientThread& thread);
  void drop_oldest_of(ThreadId id, Step then);
  Chunk taken_from(std::array<Chunk, kMaxWindow>& chunks, Byte stream);
  void after_open(ThreadId id);
  void put_return(ThreadId id);
  void next_in_loop(ThreadId id, Byte stream);
  [[nodiscard]] Byte held_by_user(const Reader& reader) const;
  [[nodiscard]] bool all_done() const;

  // ---- reader.cpp
  bool take_step(ThreadId id);
  bool wait_step(ThreadId id);
  bool sleep_step(ThreadId id);
  bool news_step(ThreadId id);
  bool poll_step(ThreadId id, bool choice);
  bool leave_step(ThreadId id);
  bool look(ThreadId id);
  [[nodiscard]] Descriptor take(Byte stream);
  void take_descriptor(ThreadId id);
  void take_terminal(ThreadId id, const Descriptor& descriptor);
  void end_stream(ThreadId id, bool terminal_taken);
  [[nodiscard]] bool must_give_back(const ClientThread& thread) const;

  const Scenario& scenario_;
  const Mutant mutant_;
  State s_;
  const char* failure_ = nullptr;
};

// For the Explorer: everything that can happen in a state.
class Model {
 public:
  using State = model::State;
  Model(const Scenario& scenario, Mutant mutant) : scenario_(scenario), mutant_(mutant) {}

  [[nodiscard]] State initial() const {
    World world(scenario_, mutant_, {});
    world.set_up();
    return world.state();
  }
  [[nodiscard]] std::size_t state_bytes() const {
    return offsetof(State, streams) + scenario_.streams * sizeof(Stream);
  }
  [[nodiscard]] const char* wrong_at_rest(const State& state) const {
    return World(scenario_, mutant_, state).wrong_at_rest();
  }

  struct Label {
    enum class What : Byte { kStep, kChoice, kDrain, kComplete, kKillDaemon, kKillClient };
    What what{};
    ThreadId thread{};
    Step step{};
  };
  [[nodiscard]] std::string name(const Label& label) const;

  template <class Visit>
  void successors(const State& state, Visit&& visit) const {
    using What = Label::What;
    const World world(scenario_, mutant_, state);
    const auto to = [&](What what, ThreadId id, Step step, auto&& happen) {
      World next = world;
      happen(next);
      visit(Label{what, id, step}, next.state(), next.failure());
    };
    for (Byte i = 0; i < kThreads; ++i) {
      const auto id = static_cast<ThreadId>(i);
      const Step step = world.at(id);
      if (world.is_ready(id)) to(What::kStep, id, step, [id](World& next) { next.step(id, false); });
      if (world.is_ready(id) && world.has_choice(id))
        to(What::kChoice, id, step, [id](World& next) { next.step(id, true); });
      if (world.can_drain(id)) to(What::kDrain, id, step, [id](World& next) { next.drain(id); });
    }
    for (Byte stream = 0; stream < scenario_.streams; ++stream) {
      for (Byte operation = 0; operation < 3; ++operation) {
        if (!world.can_complete(stream, operation)) continue;
        to(What::kComplete, kDiskThread, Step::kDone,
           [stream, operation](World& next) { next.complete(stream, operation); });
      }
    }
    if (world.can_kill_daemon())
      to(What::kKillDaemon, kDiskThread, Step::kDone, [](World& next) { next.kill_daemon(); });
    if (world.can_kill_client())
      to(What::kKillClient, kReader, Step::kDone, [](World& next) { next.kill_client(); });
  }

 private:
  const Scenario scenario_;
  const Mutant mutant_;
};

}  // namespace nvr::model
