#include "tests/proof/client.h"

#include <algorithm>
#include <bit>

namespace nvr::proof {

using Look = DescriptorConsumer::Look;
using shm::DescriptorKind;

namespace {

World& world() {
  return *World::current;
}

void raise(const char* what, std::size_t object, std::uint32_t flag) {
  world().call(what, object, 0, [flag](State& state, std::size_t) {
    state.flags |= flag;
    return 0U;
  });
}

void await(const char* what, std::size_t object, std::uint32_t flag) {
  world().call(what, object, flag, [flag](State& state, std::size_t) {
    state.flags &= ~flag;
    return 0U;
  });
}

}  // namespace

User::User(Wires& wires, std::uint32_t stream)
    : wires_(&wires),
      descriptors_(wires.streams[stream].publication, wires.streams[stream].descriptors.data(),
                   2 * wires.scenario.window, kFirstIndex + wires.scenario.descriptors_at_first()),
      sleeper_(wires.streams[stream].waiting),
      stream_(stream),
      opened_(wires.scenario.generations_at_first()),
      generation_(kFirstIndex + opened_) {
  taken = wires.scenario.descriptors_at_first();
  if (!wires.scenario.begins_starved) return;
  phase_ = Phase::kReading;
  position_ = wires.scenario.window;
  for (count_ = 0; count_ + 1 < wires.scenario.window; ++count_)
    chunks_[count_] = {.slot = count_, .content = content_of(generation_, count_)};
}

// A thread of its own.
bool User::round() {
  if (advance()) return true;
  raise("has ended", kHandOver, kReaderDone);
  return false;
}

bool User::advance() {
  const Scenario& scenario = wires_->scenario;
  if (phase_ == Phase::kDone) return false;
  if (phase_ == Phase::kUnopened) return claim();
  if (phase_ == Phase::kDropping) {
    if (count_ == 0)
      phase_ = Phase::kDone;
    else
      drop_oldest();
    return true;
  }
  if (count_ > scenario.keep) {
    drop_oldest();
    return true;
  }
  if (std::exchange(polled_in_vain_, false)) channel().unrung.set_reader_waiting(false);  // next()
  if (leaves_ || is_stopped()) {
    leave(false);
    return true;
  }
  if (phase_ == Phase::kClaimed) {
    start();
    return true;
  }
  if (phase_ >= Phase::kOpening) {
    const Look look = descriptors_.look();
    if (look == Look::kCorrupt) world().fail("the descriptor ring moved too far");
    if (look == Look::kReady) {
      take();
      return true;
    }
  }
  if (scenario.event_loop) return poll();
  wait();
  return true;
}

bool User::is_stopped() {
  return is_stoppable() && channel().stopped.load() != 0;
}

// ---- From one stream to the next: claim_channel(), start(), leave_channel(), drain()

bool User::claim() {
  if (opened_ == 1 && is_stoppable()) await("joins the thread that cancels", kHandOver, kHelperDone);
  if (opened_ == wires_->scenario.generations || is_dead_) {
    phase_ = Phase::kDropping;
    return true;
  }
  ++opened_;
  position_ = 0;
  if (is_draining_ && drain()) is_draining_ = false;
  phase_ = is_draining_ ? Phase::kPromised : Phase::kClaimed;
  return true;
}

void User::start() {
  wires_->lock();
  if (!is_stopped()) {
    wires_->post(shm::Opcode::kOpen, stream_);
    ++generation_;
    if (wires_->scenario.posts_all) {
      wires_->post(shm::Opcode::kFinish, stream_);
      wires_->post(shm::Opcode::kClose, stream_);
    }
    if (wires_->scenario.finishes && channel().is_finished != 0) wires_->post(shm::Opcode::kFinish, stream_);
    channel().is_open = wires_->scenario.posts_all ? 0 : 1;
    phase_ = Phase::kOpening;
  }
  wires_->unlock();
}

void User::leave(bool terminal_taken) {
  leaves_ = false;
  wires_->lock();
  const bool was_open = channel().is_open != 0;
  channel().is_open = 0;
  if (was_open && !terminal_taken) wires_->post(shm::Opcode::kClose, stream_);
  if (!terminal_taken && phase_ >= Phase::kOpening) is_draining_ = !drain();
  wires_->unlock();
  phase_ = Phase::kUnopened;
}

bool User::drain() {
  for (;;) {
    const Look look = descriptors_.look();
    if (look == Look::kCorrupt) world().fail("the descriptor ring moved too far");
    if (look == Look::kEmpty) return false;
    const shm::Descriptor descriptor = descriptors_.take();
    ++taken;
    if (shm::is_terminal(descriptor.kind)) return true;
    if (descriptor.kind == DescriptorKind::kChunk) wires_->put_return(stream_, descriptor.slot);
  }
}

// ---- Taking

void User::take() {
  const Scenario& scenario = wires_->scenario;
  const shm::Descriptor descriptor = descriptors_.take();
  ++taken;
  if (descriptor.generation != generation_) world().fail("a descriptor of another generation");
  if (descriptor.kind == DescriptorKind::kOpened && phase_ == Phase::kOpening) {
    phase_ = Phase::kReading;
  } else if (descriptor.kind == DescriptorKind::kChunk && phase_ == Phase::kReading) {
    take_chunk(descriptor);
    leaves_ = scenario.abandons && world().choose("abandons the stream:", 2) != 0;
  } else if (shm::is_terminal(descriptor.kind)) {
    const bool is_complete = phase_ == Phase::kReading && position_ == scenario.chunks;
    if (descriptor.kind == DescriptorKind::kEnd && !is_complete)
      world().fail("the stream ended before its end");
    if (descriptor.kind == DescriptorKind::kClosed && !is_stopped() && !scenario.posts_all)
      world().fail("the daemon closed the stream unasked");
    leave(true);
  } else {
    world().fail("a descriptor out of order");
  }
}

void User::take_chunk(const shm::Descriptor& descriptor) {
  const std::uint32_t content = channel().slots[descriptor.slot];
  if (descriptor.offset != position_) world().fail("a chunk that is not the next one");
  if (content != content_of(generation_, position_)) world().fail("a chunk with other bytes");
  ++position_;
  channel().held.fetch_add(1, std::memory_order_relaxed);
  chunks_[count_++] = {descriptor.slot, content};
}

// The bytes of a chunk stay what they are until it is dropped, by this thread or by the helper.
void User::drop_oldest() {
  const Chunk chunk = chunks_[0];
  std::copy(chunks_.begin() + 1, chunks_.end(), chunks_.begin());
  chunks_.back() = {};
  --count_;
  if (wires_->scenario.helper_drops)
    return raise("hands a chunk to the helper", kHandOver, kToDrop << chunk.slot);
  if (channel().slots[chunk.slot] != chunk.content) world().fail("the bytes of a held chunk have changed");
  wires_->give_back(stream_, chunk.slot);
}

// Told ResourceExhausted: drops one, or waits for the one who does.
void User::drop_one() {
  if (count_ > 0) return drop_oldest();
  await("waits until the helper has dropped a chunk", kHandOver, kHelperDropped);
}

// ---- Waiting

bool User::must_give_back() const {
  return phase_ == Phase::kReading && position_ < wires_->scenario.chunks &&
         channel().held.load(std::memory_order_relaxed) == wires_->scenario.window;
}

bool User::has_news() {
  if (is_stopped()) return true;
  if (phase_ == Phase::kPromised) {
    const bool is_kept = drain();
    if (is_kept) {
      phase_ = Phase::kClaimed;
      is_draining_ = false;
    }
    seen_head_ = descriptors_.seen_head();
    return is_kept;
  }
  const Look look = descriptors_.look();
  seen_head_ = descriptors_.seen_head();
  return look != Look::kEmpty;
}

void User::wait() {
  if (must_give_back()) return drop_one();
  const Mutant mutant = wires_->mutant;
  bool sleeps_late = false;
  if (mutant != Mutant::kWaitingSetLate) channel().unrung.set_reader_waiting(true);
  shm::sleep_unless([this](auto&& call) { call(sleeper_); },
                    [&] {
                      if (mutant != Mutant::kNoReaderSecondLook || phase_ == Phase::kPromised)
                        return has_news();
                      seen_head_ = descriptors_.seen_head();
                      return false;
                    },
                    [&] {
                      if (mutant != Mutant::kNoRingForCredit) wires_->ring_for_credit(stream_);
                      if (mutant == Mutant::kWaitingSetLate) channel().unrung.set_reader_waiting(true);
                      sleeps_late = mutant == Mutant::kRetiresBeforeSleep;
                      if (!sleeps_late) sleep();
                    });
  if (sleeps_late) sleep();
  seen_head_ = 0;
  channel().unrung.set_reader_waiting(false);
  if (is_dead_) give_up();
}

// StreamReader::sleep() and futex_waitv: compares and queues one word after the other.
void User::sleep() {
  const Wires::Stream& c = channel();
  const bool looks_first = wires_->mutant == Mutant::kStopSeenLate;
  if (looks_first && is_stopped()) return;
  const std::uint32_t stop_seen = is_stoppable() ? c.stop_word.load() : 0;
  if (!looks_first && is_stopped()) return;
  if (wires_->mutant == Mutant::kNoValueCompare) {
    world().call("queues without a compare", kFutex, 0, [&c](State& state, std::size_t thread) {
      state.queued[thread] |= 1U << c.publication.head.id();
      return 0U;
    });
  } else if (!world().compare_and_queue(c.publication.head.id(), seen_head_, kFutex)) {
    return;
  }
  const auto leave_queues = [](State& state, std::size_t thread) {
    const bool was_woken = (state.flags & woken(thread)) != 0;
    state.flags &= ~woken(thread);
    state.queued[thread] = 0;
    return was_woken ? 0U : 1U;
  };
  if (is_stoppable() && !world().compare_and_queue(c.stop_word.id(), stop_seen, kFutex)) {
    world().call("does not sleep", kFutex, 0, leave_queues);
    return;
  }
  const std::uint32_t wakes = kDead | (kWoken << kReader);
  if (world().call("sleeps", kFutex, wakes, leave_queues) == 0) return;
  raise("finds the daemon dead", kSocket, 0);
  if (wires_->mutant == Mutant::kNoLookAfterDeath || !has_news()) is_dead_ = true;
}

void User::give_up() {
  const std::uint32_t seen = kFirstIndex + taken;
  const std::uint8_t head = channel().publication.head.id();
  const bool is_early = world().call("gives up: Unavailable", kSocket, 0, [&](State& state, std::size_t) {
    return state.latest(head) != seen && phase_ >= Phase::kOpening ? 1U : 0U;
  }) != 0;
  if (is_early) world().fail("Unavailable before what was published");
  leave(false);
}

// False: nothing yet.
bool User::poll() {
  channel().unrung.set_reader_waiting(true);
  polled_in_vain_ = true;
  if (has_news()) return true;
  if (wires_->mutant != Mutant::kNoRingForCredit) wires_->ring_for_credit(stream_);
  if (must_give_back()) {
    drop_one();
    return true;
  }
  if (!wires_->scenario.daemon_dies) return has_news();
  const bool is_dead =
      world().call("looks whether the daemon lives", kSocket, 0,
                   [](State& state, std::size_t) { return (state.flags & kDead) != 0 ? 1U : 0U; }) != 0;
  if (has_news()) return true;
  if (is_dead) {
    is_dead_ = true;
    give_up();
  }
  return is_dead;
}

// ---- An event loop

EventLoop::EventLoop(Wires& wires)
    : wires_(&wires),
      users_{User(wires, 0), User(wires, wires.scenario.streams - 1)},
      sleeper_(wires.want_byte) {}

bool EventLoop::round() {
  const bool announces_first = wires_->mutant == Mutant::kDispatchAnnouncesFirst;
  const auto take_messages = [] {
    return world().call("takes the messages", kSocket, 0, [](State& state, std::size_t) {
      state.flags &= ~std::uint32_t{kMessage};
      return (state.flags & kDead) != 0 ? 1U : 0U;
    }) != 0;
  };
  switch (phase_) {
    case Phase::kDispatch: {  // Connection::dispatch()
      if (announces_first) sleeper_.announce();
      const bool is_dead = take_messages();
      if (!announces_first && !is_dead) sleeper_.announce();
      phase_ = Phase::kLook;
      at_ = 0;
      return true;
    }
    case Phase::kLook:
      if (users_[at_].advance()) return true;
      if (++at_ < wires_->scenario.streams) return true;
      phase_ = Phase::kWait;
      if (!std::all_of(users_.begin(), users_.begin() + at_, [](const User& user) { return user.is_done(); }))
        return true;
      raise("has ended", kHandOver, kReaderDone);
      return false;
    default:
      world().call("waits for its descriptor", kSocket, kMessage | kDead,
                   [](State&, std::size_t) { return 0U; });
      phase_ = Phase::kDispatch;
      return true;
  }
}

// ---- The other threads

bool Dropper::round() {
  constexpr std::uint32_t kAll = 15 * kToDrop;
  const std::uint32_t slots =
      world().call("takes a chunk to drop", kHandOver, kAll | kReaderDone, [](State& state, std::size_t) {
        const std::uint32_t all = state.flags & kAll;
        state.flags &= ~(all & (~all + 1));
        return all / kToDrop;
      });
  if (slots == 0) return false;
  const auto slot = static_cast<std::uint32_t>(std::countr_zero(slots));
  if (wires->streams[0].slots[slot] == 0) world().fail("the bytes of a held chunk have changed");
  wires->give_back(0, slot);
  raise("tells that it has dropped one", kHandOver, kHelperDropped);
  return true;
}

// StreamReader::stop()
bool Canceller::round() {
  Wires::Stream& stream = wires->streams[0];
  wires->lock();
  stream.stopped.store(1);
  const bool was_open = stream.is_open != 0;
  stream.is_open = 0;
  if (was_open) wires->post(shm::Opcode::kClose, 0);
  stream.stop_word.fetch_add(1);
  Wires::futex_wake(stream.stop_word);
  wires->unlock();
  raise("has cancelled", kHandOver, kHelperDone);
  return false;
}

// StreamReader::finish()
bool Finisher::round() {
  wires->lock();
  wires->streams[0].is_finished = 1;
  if (wires->streams[0].is_open != 0) wires->post(shm::Opcode::kFinish, 0);
  wires->unlock();
  return false;
}

bool Returner::round() {
  wires->give_back(stream, 0);
  return false;
}

}  // namespace nvr::proof
