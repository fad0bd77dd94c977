// The client's steps in StreamReader: taking, waiting by futex and by event loop, giving the channel up.
#include <utility>

#include "tests/model/world.h"

namespace nvr::model {

using Phase = Reader::Phase;

// ---- next(), advance(), take()

// DescriptorConsumer::look()
bool World::look(ThreadId id) {
  const Byte stream = client(id).stream;
  Reader& r = s_.streams[stream].reader;
  if (r.seen_head == r.next) {
    r.seen_head = load(id, word_of(stream, kHead));
    if (byte(unsigned{r.seen_head} - r.next) > 2 * scenario_.window)
      fail("the descriptor ring moved too far");
  }
  return r.seen_head != r.next;
}

Descriptor World::take(Byte stream) {
  Descriptor& cell =
      s_.streams[stream].descriptors[s_.streams[stream].reader.next++ % (2U * scenario_.window)];
  const Descriptor descriptor = cell;
  cell = {};
  if (descriptor.kind == Kind::kNone) fail("a descriptor was taken that was not there");
  if (descriptor.generation != s_.streams[stream].reader.generation)
    fail("a descriptor of another generation");
  return descriptor;
}

bool World::take_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kNext:
      if (r.polled_in_vain != 0) r.is_reader_waiting = r.polled_in_vain = 0;
      t.at = Step::kAdvance;
      return true;
    case Step::kAdvance:
      if (r.stopped != 0)
        end_stream(id, false);
      else if (r.phase == Phase::kClaimed)
        call(t, Step::kStart, Step::kLook);
      else
        t.at = Step::kLook;
      return true;
    case Step::kLook:
      if (r.phase >= Phase::kOpening && look(id))
        take_descriptor(id);
      else
        t.at = scenario_.event_loop ? Step::kPoll : Step::kMustGiveBack;
      return true;
    default:
      return false;
  }
}

void World::take_descriptor(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  const Descriptor descriptor = take(t.stream);
  switch (descriptor.kind) {
    case Kind::kOpened:
      if (r.phase != Phase::kOpening) fail("a descriptor out of order");
      r.phase = Phase::kReading;
      t.at = Step::kAdvance;
      return;
    case Kind::kChunk: {
      const Byte content = content_of(r.generation, r.position);
      if (r.phase != Phase::kReading || descriptor.index != r.position)
        fail("a chunk that is not the next one");
      if (s_.streams[t.stream].slots[descriptor.slot] != content) fail("a chunk with other bytes");
      ++r.position;
      ++r.held;
      r.chunks[held_by_user(r)] = {.slot = descriptor.slot, .content = content};
      t.at = Step::kUser;
      return;
    }
    default:
      take_terminal(id, descriptor);
      return;
  }
}

void World::take_terminal(ThreadId id, const Descriptor& descriptor) {
  const Reader& r = reader(client(id));
  const unsigned good_chunks = scenario_.fails_at == 0 ? scenario_.chunks : scenario_.fails_at - 1U;
  const bool is_complete = r.phase == Phase::kReading && r.position == good_chunks;
  if (descriptor.kind == Kind::kClosed && r.stopped == 0) fail("the daemon closed the stream unasked");
  if (descriptor.kind != Kind::kClosed && !is_complete) fail("the stream ended before its end");
  if ((descriptor.kind == Kind::kError) != (scenario_.fails_at != 0) && descriptor.kind != Kind::kClosed)
    fail("the stream ended with the wrong terminal");
  end_stream(id, true);
}

// ---- wait(), sleep()

bool World::must_give_back(const ClientThread& thread) const {
  const Reader& r = s_.streams[thread.stream].reader;
  return r.phase == Phase::kReading && r.position < scenario_.chunks && r.held == scenario_.window;
}

bool World::wait_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kMustGiveBack:
      t.at = must_give_back(t) ? Step::kUserWait : Step::kAnnounce;
      return true;
    case Step::kAnnounce:
      r.epoch = announced(r.epoch);
      store(id, word_of(t.stream, kWaiting), r.epoch, Mutant::kWaitingRelease);
      t.at = Step::kSetWaiting;
      return true;
    case Step::kSetWaiting:
      if (mutant_ == Mutant::kWaitingSetLate && t.result == 0) {
        t.result = 1;  // first all the rest, then this
        call(t, Step::kCreditLoad, Step::kSetWaiting);
        return true;
      }
      t.result = 0;
      r.is_reader_waiting = 1;
      if (mutant_ == Mutant::kNoClientSecondLook && r.phase != Phase::kPromised) {
        t.futex_head = r.seen_head;
        t.at = Step::kWaitNews;
      } else {
        call(t, Step::kNewsStopped, Step::kWaitNews);
      }
      return true;
    case Step::kWaitNews: {
      const bool has_news = t.result != 0;
      t.result = 0;
      const Step sleep = mutant_ == Mutant::kStopSeenLate ? Step::kStopCheck : Step::kStopSeen;
      if (has_news)
        t.at = Step::kClearWaiting;
      else if (mutant_ == Mutant::kNoRingForCredit || mutant_ == Mutant::kWaitingSetLate)
        t.at = sleep;
      else
        call(t, Step::kCreditLoad, sleep);
      return true;
    }
    case Step::kClearWaiting:
      r.is_reader_waiting = r.polled_in_vain;
      t.stop_seen = t.futex_head = t.result = 0;
      t.at = Step::kRetire;
      return true;
    case Step::kRetire:
      r.epoch = retired(r.epoch);
      store_seq_cst(id, word_of(t.stream, kWaiting), r.epoch);
      t.at =
          mutant_ == Mutant::kWaitingCleared && r.is_reader_waiting != 0 ? Step::kFutexHead : Step::kWaited;
      return true;
    case Step::kWaited:
      if (t.is_dead == 0) {
        t.at = Step::kAdvance;
        return true;
      }
      if (r.phase >= Phase::kOpening && s_.words[word_of(t.stream, kHead)] != r.next)
        fail("Unavailable before what was published");
      end_stream(id, false);
      return true;
    default:
      return false;
  }
}

bool World::sleep_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  const bool is_late = mutant_ == Mutant::kStopSeenLate;
  const Step sleep = mutant_ == Mutant::kWaitingCleared ? Step::kRetire : Step::kFutexHead;
  switch (t.at) {
    case Step::kStopSeen:
      t.stop_seen = r.stop_word;
      t.at = is_late ? sleep : Step::kStopCheck;
      return true;
    case Step::kStopCheck:
      if (r.stopped != 0)
        t.at = Step::kClearWaiting;
      else
        t.at = is_late ? Step::kStopSeen : sleep;
      return true;
    case Step::kFutexHead: {  // futex_waitv compares and queues one word after the other
      const bool is_as_seen = s_.words[word_of(t.stream, kHead)] == t.futex_head;
      const bool goes_on = is_as_seen || mutant_ == Mutant::kNoValueCompare;
      t.queues = goes_on ? byte(kHeadQueue) : Byte{0};
      t.at = goes_on ? Step::kFutexStop : Step::kClearWaiting;
      return true;
    }
    case Step::kFutexStop:
      if (r.stop_word == t.stop_seen) {
        t.queues |= kStopQueue;
        t.at = Step::kAsleep;
      } else {
        t.queues = t.is_woken = 0;
        t.at = Step::kClearWaiting;
      }
      return true;
    case Step::kAsleep:
      t.queues = 0;
      if (std::exchange(t.is_woken, Byte{0}) != 0) {
        t.at = Step::kClearWaiting;
      } else if (mutant_ == Mutant::kNoLookAfterDeath) {
        t.is_dead = 1;
        t.at = Step::kClearWaiting;
      } else {  // the end of a slice: check_alive() says no
        call(t, Step::kNewsStopped, Step::kSliceNews);
      }
      return true;
    case Step::kSliceNews:
      if (t.result == 0) t.is_dead = 1;
      t.at = Step::kClearWaiting;
      return true;
    default:
      return false;
  }
}

// ---- has_news()

bool World::news_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kNewsStopped:
      if (r.stopped != 0)
        give(t, true);
      else
        t.at = r.phase == Phase::kPromised ? Step::kNewsPromise : Step::kNewsLook;
      return true;
    case Step::kNewsLook: {
      const bool any = r.phase >= Phase::kOpening && look(id);
      t.futex_head = r.seen_head;
      give(t, any);
      return true;
    }
    case Step::kNewsPromise:
      s_.words[kConnectionLock] = 1;
      call(t, Step::kDrain, Step::kNewsKept);
      return true;
    case Step::kNewsKept:
      if (t.result != 0) {
        r.phase = Phase::kClaimed;
        r.is_draining = 0;
      }
      t.futex_head = r.seen_head;
      unlock(id, kConnectionLock);
      leave(t);
      return true;
    default:
      return false;
  }
}

// ---- poll()

bool World::poll_step(ThreadId id, bool choice) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kPoll:
      r.is_reader_waiting = r.polled_in_vain = 1;
      call(t, Step::kNewsStopped, Step::kPollNews);
      return true;
    case Step::kPollNews:
      if (t.result != 0)
        t.at = Step::kAdvance;
      else if (mutant_ == Mutant::kNoRingForCredit)
        t.at = Step::kPollCredit;
      else
        call(t, Step::kCreditLoad, Step::kPollCredit);
      t.result = 0;
      return true;
    case Step::kPollCredit:
      t.at = must_give_back(t) ? Step::kUserWait : Step::kPollAlive;
      return true;
    case Step::kPollAlive:  // asks now and then
      if (choice) t.is_dead = 1;
      call(t, Step::kNewsStopped, Step::kPollDead);
      return true;
    case Step::kPollDead:
      if (t.result != 0)
        t.at = Step::kAdvance;
      else
        t.at = t.is_dead != 0 ? Step::kWaited : Step::kLoopNext;
      t.result = 0;
      return true;
    default:
      return false;
  }
}

// ---- leave_channel()

void World::end_stream(ThreadId id, bool terminal_taken) {
  client(id).terminal_taken = terminal_taken ? 1 : 0;
  call(client(id), Step::kLeave, Step::kUserEnded);
}

bool World::leave_step(ThreadId id) {
  ClientThread& t = client(id);
  Reader& r = reader(t);
  switch (t.at) {
    case Step::kLeave: {
      if (r.polled_in_vain != 0) r.is_reader_waiting = r.polled_in_vain = 0;  // stop_waiting()
      r.stop_lock = 1;
      const bool was_open = r.is_open != 0;
      r.is_open = 0;
      t.at = Step::kLeaveChannel;
      if (!was_open || t.terminal_taken != 0) return true;
      t.command = {.is_open = 0, .stream = t.stream, .generation = 0};
      call(t, Step::kPost, Step::kLeaveChannel);
      return true;
    }
    case Step::kLeaveChannel: {
      const bool drains = t.terminal_taken == 0 && r.phase >= Phase::kOpening;
      t.terminal_taken = 0;
      if (drains) {
        s_.words[kConnectionLock] = 1;
        call(t, Step::kDrain, Step::kLeft);
        return true;
      }
      r.phase = Phase::kEnded;  // a promise that is broken leaves the channel draining
      r.stop_lock = 0;
      leave(t);
      return true;
    }
    case Step::kLeft:
      r.is_draining = t.result != 0 ? 0 : 1;
      t.result = 0;
      r.phase = Phase::kEnded;
      unlock(id, kConnectionLock);
      r.stop_lock = 0;
      leave(t);
      return true;
    default:
      return false;
  }
}

}  // namespace nvr::model
