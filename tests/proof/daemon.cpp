#include "tests/proof/daemon.h"

#include <bit>
#include <utility>

namespace nvr::proof {

using shm::DescriptorKind;
using Serving = ServedStream::State;

namespace {

World& world() {
  return *World::current;
}

constexpr std::uint32_t bit(std::uint32_t slot) {
  return std::uint32_t{1} << slot;
}

std::uint32_t last_stream(const Wires& wires) {
  return wires.scenario.streams - 1;
}

}  // namespace

ServedStream::ServedStream(World& world, Wires& wires, std::uint32_t index)
    : descriptors(wires.streams[index].publication, wires.streams[index].descriptors.data(),
                  2 * wires.scenario.window, kFirstIndex + wires.scenario.descriptors_at_first()),
      returns(wires.streams[index].credit, wires.streams[index].returns.data(), wires.scenario.window,
              kFirstIndex),
      reader((world.name("rung_for, the disk thread's", mask(kDisk), mask(kDisk)),
              wires.streams[index].waiting)),
      generation(kFirstIndex + wires.scenario.generations_at_first()),
      free(bit(wires.scenario.window) - 1) {
  if (!wires.scenario.is_starved_at_first()) return;
  state = Serving::kReading;
  std::swap(free, lent);
  is_starved = true;
  next = wires.scenario.window;
}

Disk::Disk(World& world, Wires& wires)
    : streams{ServedStream(world, wires, 0), ServedStream(world, wires, last_stream(wires))},
      wires_(&wires),
      commands_(wires.commands, wires.command_cells.data(),
                static_cast<std::uint32_t>(wires.command_cells.size()), kFirstIndex),
      sleeper_(wires.need_doorbell),
      event_loop_(wires.want_byte) {}

// DiskThread::run(): what is there is served, and only then the thread sleeps.
bool Disk::round() {
  if (step_ == 0) {
    is_busy_ = take_all();
  } else if (step_ <= wires_->scenario.streams) {
    is_busy_ |= serve(step_ - 1);
  } else {
    if (!is_busy_) sleep();
    is_busy_ = false;
  }
  step_ = (step_ + 1) % (wires_->scenario.streams + 2);
  return true;
}

bool Disk::take_all() {
  bool any = false;
  const bool is_well = commands_.take([&](const shm::Command& command) {
    any = true;
    take_command(command);
    return true;
  });
  if (!is_well) world().fail("violation: the command ring moved further than it is long");
  for (std::uint32_t i = 0; i < wires_->scenario.streams; ++i) {
    ServedStream& stream = streams[i];
    if (!stream.is_starved) continue;
    take_credit(stream);
    if (stream.free == 0) continue;
    stream.is_starved = false;
    any = true;
  }
  return any;
}

void Disk::take_command(const shm::Command& command) {
  ++commands_taken;
  ServedStream& stream = streams[command.stream];
  const bool is_running = stream.state != Serving::kIdle && stream.state != Serving::kEnding;
  if (command.opcode == shm::Opcode::kOpen) {
    if (stream.state != Serving::kIdle) world().fail("violation: OPEN before the terminal");
    if (command.generation != ++stream.generation)
      world().fail("violation: OPEN with a generation out of order");
    stream.state = Serving::kQueued;
    stream.next = 0;
    stream.is_told_finished = false;
    return;
  }
  if (command.generation != stream.generation)
    world().fail("violation: CLOSE or FINISH of another generation");
  if (!is_running) return;
  if (command.opcode == shm::Opcode::kClose) return end_with(command.stream, DescriptorKind::kClosed);
  stream.is_told_finished = true;
}

void Disk::take_credit(ServedStream& stream) {
  const bool is_well = stream.returns.take([&](std::uint32_t slot) {
    ++stream.slots_taken;
    if (slot >= wires_->scenario.window || (stream.lent & bit(slot)) == 0) return false;
    stream.lent &= ~bit(slot);
    stream.free |= bit(slot);
    return true;
  });
  if (!is_well) world().fail("violation: a slot was returned that was not lent");
}

bool Disk::serve(std::uint32_t index) {
  ServedStream& stream = streams[index];
  if (stream.is_in_flight) {
    const bool is_completed = world().call("reaps", kEngineQueue, 0, [](State& state, std::size_t) {
      return (std::exchange(state.flags, state.flags & ~std::uint32_t{kCompleted}) & kCompleted) != 0 ? 1U
                                                                                                      : 0U;
    }) != 0;
    if (is_completed) on_finished(index);
    if (is_completed) return true;
  }
  if (stream.state == Serving::kQueued) {
    open(index);
    return true;
  }
  if (stream.state != Serving::kReading || stream.is_in_flight) return false;
  if (stream.next == wires_->scenario.chunks) {  // the file grows
    if (stream.is_told_finished) end_with(index, DescriptorKind::kEnd);
    return stream.is_told_finished;
  }
  take_credit(stream);
  stream.is_starved = stream.free == 0;
  if (!stream.is_starved) read(index);
  return !stream.is_starved;
}

void Disk::open(std::uint32_t index) {
  ServedStream& stream = streams[index];
  const Scenario& scenario = wires_->scenario;
  put(stream, DescriptorKind::kOpened);
  const bool ends_by_itself = scenario.posts_all && world().choose("the file has ended:", 2) != 0;
  if (ends_by_itself) return end_with(index, DescriptorKind::kEnd);
  stream.state = Serving::kReading;
  if (stream.free == 0 || scenario.chunks == 0) return publish(index);  // no chunk can follow
  stream.descriptors.publish();                                         // the first chunk wakes
}

void Disk::read(std::uint32_t index) {
  ServedStream& stream = streams[index];
  const auto slot = static_cast<std::uint32_t>(std::countr_zero(stream.free));
  stream.free &= ~bit(slot);
  const std::uint32_t content = content_of(stream.generation, stream.next);
  if (!wires_->scenario.has_engine) {
    wires_->streams[index].slots[slot] = content;
    return on_read(index, slot);
  }
  stream.is_in_flight = true;
  stream.in_flight_slot = slot;
  wires_->job_slot = slot;
  wires_->job_content = content;
  world().call("submits a read", kEngineQueue, 0, [](State& state, std::size_t) {
    state.flags |= kSubmitted;
    return 0U;
  });
}

void Disk::on_finished(std::uint32_t index) {
  ServedStream& stream = streams[index];
  stream.is_in_flight = false;
  const std::uint32_t slot = std::exchange(stream.in_flight_slot, 0);
  if (stream.state == Serving::kReading) return on_read(index, slot);
  stream.free |= bit(slot);  // closed meanwhile: what was read is nobody's
  settle(index);
}

void Disk::on_read(std::uint32_t index, std::uint32_t slot) {
  ServedStream& stream = streams[index];
  const Scenario& scenario = wires_->scenario;
  stream.lent |= bit(slot);
  put(stream, DescriptorKind::kChunk, slot, stream.next++);
  if (scenario.shows_early) stream.descriptors.publish();
  if (stream.next == scenario.chunks && (!scenario.finishes || stream.is_told_finished))
    return end_with(index, DescriptorKind::kEnd);
  if (wires_->mutant != Mutant::kShownIsPublished) publish(index);
}

void Disk::end_with(std::uint32_t index, DescriptorKind terminal) {
  ServedStream& stream = streams[index];
  stream.is_starved = false;
  stream.terminal = terminal;
  stream.state = Serving::kEnding;
  settle(index);
}

void Disk::settle(std::uint32_t index) {
  ServedStream& stream = streams[index];
  if (stream.state != Serving::kEnding) return;
  if (stream.is_in_flight && wires_->mutant != Mutant::kTerminalEarly) return;
  stream.state = Serving::kIdle;
  put(stream, std::exchange(stream.terminal, DescriptorKind{}));
  publish(index);
}

void Disk::put(ServedStream& stream, DescriptorKind kind, std::uint32_t slot, std::uint32_t chunk) {
  stream.descriptors.put({.generation = stream.generation,
                          .kind = kind,
                          .slot = static_cast<std::uint16_t>(slot),
                          .offset = chunk});
}

// ServedStream::publish()
void Disk::publish(std::uint32_t index) {
  ServedStream& stream = streams[index];
  stream.descriptors.publish();
  stream.reader.ring_if_asleep([&] {
    return Wires::futex_wake(stream.descriptors.futex_word()) || wires_->mutant == Mutant::kVainRingCounts;
  });
  event_loop_.ring_if_asleep([] {
    world().call("sends PUBLISHED", kSocket, 0, [](State& state, std::size_t) {
      state.flags |= kMessage;
      return 0U;
    });
    return true;
  });
}

// DiskThread::sleep()
void Disk::sleep() {
  const auto for_each_sleeper = [this](auto&& call) { call(sleeper_); };
  const bool drains_early = wires_->mutant == Mutant::kDrainAfterLook;
  shm::sleep_unless(
      for_each_sleeper,
      [&] {
        if (wires_->mutant == Mutant::kNoSecondLook) return false;
        const bool any = take_all();
        if (drains_early) drain();
        return any;
      },
      [&] {
        world().call("sleeps until it is rung for", kDoorbellFile, kDoorbell | kCompleted,
                     [](State&, std::size_t) { return 0U; });
        if (!drains_early) drain();
      });
}

void Disk::drain() {
  world().call("drains the doorbell", kDoorbellFile, 0, [](State& state, std::size_t) {
    state.flags &= ~std::uint32_t{kDoorbell};
    return 0U;
  });
}

bool Engine::round() {
  world().call("takes a read", kEngineQueue, kSubmitted, [](State& state, std::size_t) {
    state.flags &= ~std::uint32_t{kSubmitted};
    return 0U;
  });
  const std::uint32_t slot = wires->job_slot;
  const std::uint32_t content = wires->job_content;
  wires->streams[0].slots[slot] = content;
  world().call("completes a read", kEngineQueue, 0, [](State& state, std::size_t) {
    state.flags |= kCompleted;
    return 0U;
  });
  return true;
}

}  // namespace nvr::proof
