#include "tests/proof/scenario.h"

#include <algorithm>

namespace nvr::proof {
namespace {

ThreadMask helper_if(bool does) {
  return does ? mask(kHelper) : 0;
}

// The client's threads that return slots of a stream.
ThreadMask returners(const Scenario& scenario, std::uint32_t stream) {
  if (scenario.two_wakers) return mask(stream == 0 ? kReader : kHelper);
  return scenario.helper_drops ? mask(kHelper) : mask(kReader);
}

ThreadMask posters(const Scenario& scenario) {
  return mask(kReader) | helper_if(scenario.cancels || scenario.finishes);
}

ThreadMask ringers(const Scenario& scenario) {
  return posters(scenario) | helper_if(scenario.helper_drops || scenario.two_wakers);
}

ThreadMask reader_of(const Scenario& scenario) {
  return scenario.two_wakers ? 0 : mask(kReader);
}

// Names what is made next.
World& as(World& world, const char* name, ThreadMask users = 0, ThreadMask writers = 0) {
  world.name(name, users, writers);
  return world;
}

template <class Cell>
std::vector<Cell> make_cells(World&, std::size_t count) {
  std::vector<Cell> cells;
  cells.reserve(count);
  while (cells.size() < count) cells.emplace_back();
  return cells;
}

std::uint32_t command_capacity(const Scenario& scenario, Mutant mutant) {
  if (mutant == Mutant::kSmallCommandRing) return 4 * scenario.streams;
  return shm::Geometry{scenario.streams, scenario.window}.command_capacity();
}

}  // namespace

Wires::Stream::Stream(World& world, const Scenario& scenario, std::uint32_t index)
    : Stream(world, scenario, mask(kDisk) | reader_of(scenario), returners(scenario, index),
             mask(kReader) | returners(scenario, index), mask(kReader) | helper_if(scenario.cancels)) {}

Wires::Stream::Stream(World& world, const Scenario& scenario, ThreadMask both, ThreadMask returners,
                      ThreadMask holders, ThreadMask stoppers)
    : publication{Word(as(world, "head", both, mask(kDisk)))},
      descriptors(
          make_cells<Memory::DescriptorCell>(as(world, "a descriptor"), 2 * std::size_t{scenario.window})),
      waiting(as(world, "waiting", scenario.event_loop ? mask(kDisk) : both, mask(kReader))),
      credit{Word(as(world, "return_tail", mask(kDisk) | returners, returners))},
      returns(make_cells<Memory::ReturnCell>(as(world, "a returned number"), scenario.window)),
      slots(make_cells<Plain<std::uint32_t>>(as(world, "a slot"), scenario.window)),
      return_producer(ReturnProducer(credit, returns.data(), scenario.window, kFirstIndex)),
      unrung((as(world, "unrung", holders, holders), UnrungCredit())),
      held(as(world, "held", holders, holders), scenario.is_starved_at_first() ? scenario.window : 0),
      stop_word(as(world, "stop_word", stoppers, mask(kHelper))),
      stopped(as(world, "stopped", stoppers, mask(kHelper))),
      is_open(scenario.generations_at_first()),
      generation(kFirstIndex + scenario.generations_at_first()) {
  for (std::uint32_t i = 0; i < scenario.window && scenario.is_starved_at_first(); ++i)
    slots[i] = content_of(kFirstIndex + 1, i);
}

Wires::Wires(World& world, const Scenario& what, Mutant broken)
    : scenario(what),
      mutant(broken),
      need_doorbell(as(world, "need_doorbell", mask(kDisk) | ringers(what), mask(kDisk))),
      want_byte(as(world, "want_byte", mask(kDisk) | (what.event_loop ? mask(kReader) : 0), mask(kReader))),
      commands{Word(as(world, "command_tail", mask(kDisk) | posters(what), posters(what)))},
      command_cells(make_cells<Memory::CommandCell>(as(world, "a command"), command_capacity(what, broken))),
      command_producer(CommandProducer(commands, command_cells.data(),
                                       static_cast<std::uint32_t>(command_cells.size()), kFirstIndex)),
      daemon((as(world, "rung_for, the client's", ringers(what), ringers(what)), need_doorbell)) {
  for (std::uint32_t i = 0; i < what.streams; ++i) streams.emplace_back(world, what, i);
}

// ---- What several threads of the client do

void Wires::lock() {
  if (!scenario.cancels && !scenario.finishes) return;
  World::current->call("locks", kClientLock, kUnlocked, [](State& state, std::size_t) {
    state.flags &= ~std::uint32_t{kUnlocked};
    return 0U;
  });
}

void Wires::unlock() {
  if (!scenario.cancels && !scenario.finishes) return;
  World::current->call("unlocks", kClientLock, 0, [](State& state, std::size_t) {
    state.flags |= kUnlocked;
    return 0U;
  });
}

// Connection::ring()
void Wires::ring() {
  const auto write_doorbell = [] {
    World::current->call("writes to the doorbell", kDoorbellFile, 0, [](State& state, std::size_t) {
      state.flags |= kDoorbell;
      return 0U;
    });
    return true;
  };
  if (mutant == Mutant::kRecordsBeforeRing) {
    if (daemon.ring_if_asleep([] { return true; })) write_doorbell();
    return;
  }
  daemon.ring_if_asleep(write_doorbell);
}

// Connection::post()
void Wires::post(shm::Opcode opcode, std::uint32_t stream) {
  Stream& s = streams[stream];
  const std::uint32_t generation = s.generation + (opcode == shm::Opcode::kOpen ? 1 : 0);
  s.generation = generation;
  CommandProducer producer = command_producer;
  producer.put({.opcode = opcode, .stream = stream, .generation = generation});
  command_producer = producer;
  ring();
}

// Connection::give_back()
void Wires::give_back(std::uint32_t stream, std::uint32_t slot) {
  Stream& s = streams[stream];
  put_return(stream, slot);
  s.held.fetch_add(std::uint32_t{0} - 1, std::memory_order_relaxed);
  if (s.unrung.add(scenario.threshold)) ring_for_credit(stream);
}

void Wires::put_return(std::uint32_t stream, std::uint32_t slot) {
  Stream& s = streams[stream];
  ReturnProducer producer = s.return_producer;
  producer.put(slot);
  s.return_producer = producer;
}

void Wires::ring_for_credit(std::uint32_t stream) {
  if (streams[stream].unrung.take()) ring();
}

bool Wires::futex_wake(const Word& word) {
  return World::current->call("FUTEX_WAKE", kFutex, 0, [&word](State& state, std::size_t) {
    World::current->fence();
    for (std::size_t i = 0; i < kMaxThreads; ++i) {
      if ((state.queued[i] >> word.id() & 1) == 0) continue;
      state.queued[i] = 0;
      state.flags |= woken(i);
      return 1U;
    }
    return 0U;
  }) != 0;
}

}  // namespace nvr::proof
