// The client's steps: what its users do, and of the library the Connection. Each group of steps has a
// function, which says false to a step that is not its own. reader.cpp has the StreamReader's.
#include <bit>

#include "tests/model/world.h"

namespace nvr::model {

using Phase = Reader::Phase;

void World::client_step(ThreadId id, bool choice) {
  const bool taken = user_step(id, choice) || channel_step(id) || post_step(id) || credit_step(id) ||
                     take_step(id) || wait_step(id) || sleep_step(id) || news_step(id) ||
                     poll_step(id, choice) || leave_step(id) || dispatch_step(id) || stop_step(id);
  if (!taken) fail("no such step of the client");
}

// ---- Calls and returns

void World::call(ClientThread& thread, Step step, Step back) {
  thread.back[thread.depth++] = back;
  thread.at = step;
}

void World::leave(ClientThread& thread) {
  thread.at = thread.back[--thread.depth];
  thread.back[thread.depth] = Step::kDone;
}

void World::give(ClientThread& thread, bool result) {
  thread.result = result ? 1 : 0;
  leave(thread);
}

// ---- The user: opens, takes, keeps some chunks, drops the others

bool World::user_step(ThreadId id, bool choice) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kUserOpen:
      t.at = Step::kClaim;
      return true;
    case Step::kUser:
      if (held_by_user(r) <= scenario_.keep)
        t.at = Step::kUserNext;
      else
        drop_oldest_of(id, Step::kUser);
      return true;
    case Step::kUserNext:
      t.at = choice ? Step::kUserLeaves : Step::kNext;
      return true;
    case Step::kUserWait:  // told ResourceExhausted: drops one, or waits for the one who does
      t.at = scenario_.event_loop ? Step::kLoopNext : Step::kNext;
      if (held_by_user(r) > 0) drop_oldest_of(id, t.at);
      return true;
    case Step::kUserLeaves:
      end_stream(id, false);
      return true;
    case Step::kUserEnded:
      if (r.opened < scenario_.generations && t.is_dead == 0) {
        t.at = Step::kUserOpen;
        return true;
      }
      r.is_done = 1;
      if (scenario_.event_loop)
        next_in_loop(id, byte(t.stream + 1U));
      else
        t.at = Step::kUserCloses;
      return true;
    case Step::kUserCloses:
      if (scenario_.detaches && all_done()) s_.kernel.client_hung_up = 1;
      t.at = Step::kUserDrops;
      return true;
    case Step::kUserDrops:
      for (Byte i = 0; i < scenario_.streams && scenario_.event_loop && held_by_user(reader(t)) == 0; ++i)
        t.stream = i;
      if (held_by_user(reader(t)) == 0)
        t = {};
      else
        drop_oldest_of(id, Step::kUserDrops);
      return true;
    case Step::kHelperDrops:
      if (s_.to_drop[0].content == 0) {
        t = {};
      } else {
        t.dropped = taken_from(s_.to_drop, t.stream).slot;
        call(t, Step::kGivePut, Step::kHelperDrops);
      }
      return true;
    default:
      return false;
  }
}

bool World::all_done() const {
  for (Byte i = 0; i < scenario_.streams; ++i) {
    if (s_.streams[i].reader.is_done == 0) return false;
  }
  return true;
}

Byte World::held_by_user(const Reader& reader) const {
  Byte count = 0;
  while (count < kMaxWindow && reader.chunks[count].content != 0) ++count;
  return count;
}

// The user drops its oldest chunk of the stream, or hands it to the helper.
void World::drop_oldest_of(ThreadId id, Step then) {
  ClientThread& t = client(id);
  const Chunk chunk = taken_from(reader(t).chunks, t.stream);
  t.at = then;
  if (!scenario_.helper_drops) {
    t.dropped = chunk.slot;
    return call(t, Step::kGivePut, then);
  }
  std::size_t place = 0;
  while (s_.to_drop[place].content != 0) ++place;
  s_.to_drop[place] = chunk;
}

// The bytes of a chunk stay what they are until it is dropped.
Chunk World::taken_from(std::array<Chunk, kMaxWindow>& chunks, Byte stream) {
  const Chunk chunk = chunks[0];
  for (std::size_t i = 1; i < chunks.size(); ++i) chunks[i - 1] = chunks[i];
  chunks.back() = {};
  if (s_.streams[stream].slots[chunk.slot] != chunk.content) fail("the bytes of a held chunk have changed");
  return chunk;
}

// ---- claim_channel(), drain()

bool World::channel_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kClaim:  // and the new StreamReader
      r.position = r.stopped = r.is_open = r.polled_in_vain = 0;
      r.phase = Phase::kClaimed;
      ++r.opened;
      if (r.is_draining != 0) {
        s_.words[kConnectionLock] = 1;
        call(t, Step::kDrain, Step::kClaimed);
      } else {
        after_open(id);
      }
      return true;
    case Step::kClaimed:
      r.is_draining = t.result != 0 ? 0 : 1;
      if (r.is_draining != 0) r.phase = Phase::kPromised;
      t.result = 0;
      unlock(id, kConnectionLock);
      after_open(id);
      return true;
    case Step::kDrain: {
      if (!look(id)) {
        give(t, false);
        return true;
      }
      const Descriptor descriptor = take(t.stream);
      if (descriptor.kind == Kind::kOpened) return true;  // stays
      if (descriptor.kind != Kind::kChunk) {
        give(t, true);
        return true;
      }
      t.dropped = descriptor.slot;
      t.at = Step::kDrainPut;
      return true;
    }
    case Step::kDrainPut:
      put_return(id);
      t.at = Step::kDrain;
      return true;
    default:
      return false;
  }
}

// Where the user goes when a stream was opened; the constructor posts OPEN if it can.
void World::after_open(ThreadId id) {
  ClientThread& t = client(id);
  Step then = Step::kUser;
  const bool opens_next = scenario_.event_loop && t.stream + 1 < scenario_.streams &&
                          s_.streams[t.stream + 1U].reader.phase == Phase::kNone;
  if (opens_next)
    then = Step::kDispatched;
  else if (scenario_.event_loop && load(id, kWantByte) == 0)
    then = Step::kDispatch;
  t.at = then;
  if (reader(t).phase == Phase::kClaimed) call(t, Step::kStart, then);
}

// ---- post_open(), post_close(), ring()

bool World::post_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kStart:
      if (r.stopped != 0) {
        leave(t);
        return true;
      }
      r.stop_lock = 1;
      t.command = {.is_open = 1, .stream = t.stream, .generation = 0};
      call(t, Step::kPost, Step::kStarted);
      return true;
    case Step::kStarted:
      r.is_open = 1;
      r.phase = Phase::kOpening;
      r.stop_lock = 0;
      leave(t);
      return true;
    case Step::kPost: {
      s_.words[kConnectionLock] = 1;
      if (t.command.is_open != 0) ++r.generation;
      t.command.generation = r.generation;
      Command& cell = s_.commands[s_.commands_put++ % std::bit_ceil(4U * scenario_.streams)];
      if (cell.generation != 0) fail("a command was overwritten before it was taken");
      cell = t.command;
      t.command = {};
      store(id, kCommandTail, s_.commands_put, Mutant::kCommandRelease);
      call(t, Step::kRing, Step::kPosted);
      return true;
    }
    case Step::kPosted:
      unlock(id, kConnectionLock);
      leave(t);
      return true;
    case Step::kRing:
      t.epoch = load(id, kNeedDoorbell);
      if ((t.epoch & 1) != 0) {
        t.at = Step::kRingCompare;
        return true;
      }
      t.epoch = 0;
      leave(t);
      return true;
    case Step::kRingCompare:
      if (load(id, kRungFor) == t.epoch) {
        leave(t);
      } else {
        if (is_private(id))
          s_.words[kRungFor] = t.epoch;
        else
          store_buffered(id, kRungFor, t.epoch);
        t.at = Step::kRingWrite;
      }
      t.epoch = 0;
      return true;
    case Step::kRingWrite:
      s_.kernel.doorbell_count = 1;
      s_.kernel.doorbell_edge = s_.kernel.is_doorbell_watched;
      leave(t);
      return true;
    default:
      return false;
  }
}

// ---- give_back(), ring_for_credit()

void World::put_return(ThreadId id) {
  ClientThread& t = client(id);
  Stream& stream = s_.streams[t.stream];
  Byte& cell = stream.returns[stream.reader.returned++ % scenario_.window];
  if (cell != 0) fail("a returned slot was overwritten before it was taken");
  cell = byte(t.dropped + 1U);
  t.dropped = 0;
  store(id, word_of(t.stream, kReturnTail), stream.reader.returned, Mutant::kReturnRelease);
  if (!can_drain(id)) return;  // else the lock is held until what was stored under it is out
  s_.words[word_of(t.stream, kChannelLock)] = 1;
  unlock(id, word_of(t.stream, kChannelLock));
}

bool World::credit_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kGivePut:
      put_return(id);
      t.at = Step::kGiveHeld;
      return true;
    case Step::kGiveHeld:
      --r.held;
      t.at = Step::kGiveCount;
      return true;
    case Step::kGiveCount:
      t.at = ++r.returned_since_ring >= scenario_.threshold ? Step::kCreditLoad : Step::kGiveIsWaiting;
      return true;
    case Step::kGiveIsWaiting:
      if (r.is_reader_waiting != 0)
        t.at = Step::kCreditLoad;
      else
        leave(t);
      return true;
    case Step::kCreditLoad:
      if (r.returned_since_ring != 0)
        t.at = Step::kCreditZero;
      else
        leave(t);
      return true;
    case Step::kCreditZero:
      r.returned_since_ring = 0;
      t.at = Step::kRing;
      return true;
    default:
      return false;
  }
}

// ---- The event loop

void World::next_in_loop(ThreadId id, Byte stream) {
  ClientThread& t = client(id);
  while (stream < scenario_.streams && s_.streams[stream].reader.is_done != 0) ++stream;
  if (stream < scenario_.streams) {
    t.stream = stream;
    t.at = Step::kNext;
  } else {
    t.stream = 0;
    t.at = all_done() ? Step::kUserCloses : Step::kLoopWait;
  }
}

bool World::dispatch_step(ThreadId id) {
  ClientThread& t = client(id);
  const bool is_early = mutant_ == Mutant::kDispatchAnnouncesFirst;
  switch (t.at) {
    case Step::kDispatch:
      s_.kernel.messages = 0;
      t.at = is_early ? Step::kLoopNext : Step::kDispatchHungUp;
      if (is_early) next_in_loop(id, 0);
      return true;
    case Step::kDispatchHungUp:
      if (s_.kernel.daemon_died != 0) t.is_dead = 1;
      t.at = Step::kDispatchAnnounce;
      if (t.is_dead != 0) next_in_loop(id, 0);
      return true;
    case Step::kDispatchAnnounce:
      store(id, kWantByte, announced(load(id, kWantByte)), Mutant::kWantByteRelease);
      if (is_early)
        t.at = Step::kDispatch;
      else
        next_in_loop(id, 0);
      return true;
    case Step::kDispatched:  // the next stream is opened first
      ++t.stream;
      t.at = Step::kUserOpen;
      return true;
    case Step::kLoopNext:
      next_in_loop(id, byte(t.stream + 1U));
      return true;
    case Step::kLoopWait:
      t.at = is_early ? Step::kDispatchHungUp : Step::kDispatch;
      return true;
    default:
      return false;
  }
}

// ---- stop(), by another thread

bool World::stop_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kStop:
      r.stopped = 1;
      r.stop_lock = 1;
      t.at = Step::kStopWord;
      if (r.is_open == 0) return true;
      r.is_open = 0;
      t.command = {.is_open = 0, .stream = t.stream, .generation = 0};
      call(t, Step::kPost, Step::kStopWord);
      return true;
    case Step::kStopWord:
      ++r.stop_word;
      t.at = Step::kStopWake;
      return true;
    case Step::kStopWake:
      for (const ThreadId other : {kReader, kSecondReader}) {
        if (client(other).stream == t.stream) static_cast<void>(client(other).wake(kStopQueue));
      }
      r.stop_lock = 0;
      t.at = Step::kDone;
      return true;
    default:
      return false;
  }
}

}  // namespace nvr::model
