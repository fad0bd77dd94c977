// Memory, who may step, and what is wrong where nobody can.
#include "tests/model/world.h"

#include <algorithm>

namespace nvr::model {
namespace {

using Phase = Reader::Phase;

// Calls of the kernel: its locks are barriers.
bool is_kernel_call(Step step) {
  constexpr std::array kCalls = {
      Step::kRingWrite, Step::kFutexHead, Step::kFutexStop,      Step::kAsleep,        Step::kStopWake,
      Step::kDispatch,  Step::kLoopWait,  Step::kDispatchHungUp, Step::kDiskFutexWake, Step::kDiskSend,
      Step::kDiskSleep, Step::kDiskDrain, Step::kUserCloses};
  return std::ranges::find(kCalls, step) != kCalls.end();
}

}  // namespace

void World::set_up() {
  s_ = {};
  for (Byte i = 0; i < scenario_.streams; ++i) s_.streams[i].served.free = byte((1U << scenario_.window) - 1);
  client(kReader).at = Step::kUserOpen;
  if (!scenario_.event_loop && scenario_.streams > 1) {
    client(kSecondReader).at = Step::kUserOpen;
    client(kSecondReader).stream = 1;
  }
  if (!scenario_.attaches) {
    s_.control = Step::kControlWait;
    s_.words[kMailTail] = s_.disk.mail_seen = s_.disk.is_attached = s_.kernel.is_doorbell_watched = 1;
  }
  if (scenario_.helper_drops) client(kHelper).at = Step::kHelperDrops;
  if (scenario_.cancels) client(kHelper).at = Step::kStop;
}

// ---- Memory

Byte World::load(ThreadId id, Byte word) const {
  const StoreBuffer& buffer = s_.buffers[id];
  for (Byte i = buffer.size; i-- > 0;) {
    if (buffer.stores[i].word == word) return buffer.stores[i].value;
  }
  return s_.words[word];
}

void World::drain(ThreadId id) {
  StoreBuffer& buffer = s_.buffers[id];
  s_.words[buffer.stores[0].word] = buffer.stores[0].value;
  std::copy(buffer.stores.begin() + 1, buffer.stores.begin() + buffer.size, buffer.stores.begin());
  buffer.stores[--buffer.size] = {};
}

void World::drain_all(ThreadId id) {
  while (can_drain(id)) drain(id);
}

void World::store_seq_cst(ThreadId id, Byte word, Byte value) {
  drain_all(id);
  s_.words[word] = value;
}

void World::store_buffered(ThreadId id, Byte word, Byte value) {
  StoreBuffer& buffer = s_.buffers[id];
  if (buffer.size == StoreBuffer::kCapacity) return fail("the model's store buffers are too short");
  buffer.stores[buffer.size++] = {word, value};
}

void World::store(ThreadId id, Byte word, Byte value, Mutant weakened) {
  if (mutant_ == weakened)
    store_buffered(id, word, value);
  else
    store_seq_cst(id, word, value);
}

// A release store: not before what was stored under the lock.
void World::unlock(ThreadId id, Byte word) {
  if (can_drain(id))
    store_buffered(id, word, 0);
  else
    s_.words[word] = 0;
}

// Sleeper::announce() and retire()
Byte World::announced(Byte epoch) const {
  if (mutant_ == Mutant::kNoNewEpoch) return 1;
  return byte((epoch + 1U) | 1U);
}
Byte World::retired(Byte epoch) const {
  if ((epoch & 1) == 0) return epoch;
  return mutant_ == Mutant::kNoNewEpoch ? Byte{0} : byte(epoch + 1U);
}

// Of an epoch word only two things matter: is it odd, and was it rung for? Told apart by their numbers as
// well, the same situation would be explored again after each sleep. `owner` is what the sleeper knows of its
// word.
void World::normalise_epoch(Byte word, Byte* owner, Byte* rung_for) {
  if (owner != nullptr && *owner != s_.words[word]) return;  // a store is on its way
  const bool is_asleep = (s_.words[word] & 1) != 0;
  *rung_for = is_asleep && *rung_for == s_.words[word] ? 1 : 0;
  s_.words[word] = is_asleep ? 1 : 0;
  if (owner != nullptr) *owner = s_.words[word];
}

void World::normalise() {
  if (mutant_ == Mutant::kNoNewEpoch) return;
  for (Byte i = 0; i < scenario_.streams; ++i)
    normalise_epoch(word_of(i, kWaiting), &s_.streams[i].reader.epoch, &s_.streams[i].served.rung_for);
  if (!can_drain(kReader)) normalise_epoch(kWantByte, nullptr, &s_.disk.event_loop_rung_for);
  bool is_looked_at = false;
  for (const ThreadId id : {kReader, kSecondReader, kHelper})
    is_looked_at |= client(id).epoch != 0 || can_drain(id);
  if (!is_looked_at) normalise_epoch(kNeedDoorbell, &s_.disk.epoch, &s_.words[kRungFor]);
}

// ---- Who may step

bool World::is_process_dead(ThreadId id) const {
  return is_client(id) ? s_.kernel.client_died != 0 : s_.kernel.daemon_died != 0;
}

Step World::at(ThreadId id) const {
  if (id == kDiskThread) return s_.disk.at;
  return id == kControlThread ? s_.control : client(id).at;
}

bool World::is_ready(ThreadId id) const {
  const Step step = at(id);
  if (step == Step::kDone || is_process_dead(id)) return false;
  if (s_.buffers[id].size + 2 > StoreBuffer::kCapacity) return false;
  if (is_kernel_call(step) && can_drain(id)) return false;
  if (step == Step::kControlWait) return s_.kernel.client_hung_up != 0;
  if (step == Step::kControlDetached) return s_.detached != 0;
  if (step == Step::kDiskSleep) {
    if (s_.kernel.doorbell_edge != 0 || s_.kernel.mail_edge != 0) return true;
    return std::any_of(s_.streams.begin(), s_.streams.begin() + scenario_.streams, [](const Stream& stream) {
      constexpr auto kCompleted = Read::Status::kCompleted;
      const ServedStream& served = stream.served;
      return served.open == kCompleted || served.reads[0].status == kCompleted ||
             served.reads[1].status == kCompleted;
    });
  }
  return !is_client(id) || is_unblocked(client(id));
}

bool World::is_unblocked(const ClientThread& thread) const {
  const Stream& stream = s_.streams[thread.stream];
  const bool is_connection_free = s_.words[kConnectionLock] == 0;
  switch (thread.at) {
    case Step::kPost:
    case Step::kLeaveChannel:
    case Step::kNewsPromise:
      return is_connection_free;
    case Step::kClaim: {  // who destroys a stream has seen to it that nobody is inside its cancel()
      const Step helper = client(kHelper).at;
      const bool is_stopping = scenario_.cancels && helper != Step::kStop && helper != Step::kDone;
      return is_connection_free && !is_stopping;
    }
    case Step::kDrainPut:
    case Step::kGivePut:
      return s_.words[word_of(thread.stream, kChannelLock)] == 0;
    case Step::kStart:
    case Step::kLeave:
      return stream.reader.stop_lock == 0;
    case Step::kStop:
      return stream.reader.stop_lock == 0 && stream.reader.phase != Phase::kNone;
    case Step::kUserWait:
      return scenario_.event_loop || stream.reader.held < scenario_.window ||
             stream.reader.chunks[0].content != 0;
    case Step::kHelperDrops:
      return s_.to_drop[0].content != 0 || client(kReader).at == Step::kDone;
    // A slice of the wait ends only where the daemon is dead: nothing else may depend on it.
    case Step::kAsleep:
      return thread.is_woken != 0 || s_.kernel.daemon_died != 0;
    case Step::kLoopWait:
      return s_.kernel.messages > 0 || s_.kernel.daemon_died != 0;
    default:
      return true;
  }
}

bool World::has_choice(ThreadId id) const {
  if (at(id) == Step::kPollAlive) return s_.kernel.daemon_died != 0;
  if (!scenario_.abandons || id != kReader || at(id) != Step::kUserNext) return false;
  return client(id).stream == 0 && s_.streams[0].reader.opened < scenario_.generations;
}

// Does the next step touch only what no other thread knows in this scenario? Then it is taken together with
// the one before.
bool World::is_private(ThreadId id) const {
  const Step step = at(id);
  if (!is_client(id)) {
    constexpr std::array kPrivate = {Step::kDiskCommand, Step::kDiskStarved, Step::kDiskTaken,
                                     Step::kDiskSubmit, Step::kDiskEndWithError};
    if (step == Step::kDiskWantByte) return !scenario_.event_loop;
    // No mail will come any more.
    if (step == Step::kDiskMail)
      return s_.disk.mail_seen > 0 && !scenario_.detaches && !scenario_.client_dies;
    return std::ranges::find(kPrivate, step) != kPrivate.end();
  }
  const Reader& reader = s_.streams[client(id).stream].reader;
  switch (step) {
    case Step::kUserOpen:
    case Step::kUser:
    case Step::kUserEnded:
    case Step::kUserDrops:
    case Step::kUserLeaves:
    case Step::kClaimed:
    case Step::kStarted:
    case Step::kPosted:
    case Step::kWaitNews:
    case Step::kSliceNews:
    case Step::kWaited:
    case Step::kNewsKept:
    case Step::kPollNews:
    case Step::kPollDead:
    case Step::kLeft:
    case Step::kDispatched:
    case Step::kLoopNext:
      return true;
    case Step::kUserNext:
      return !has_choice(id);
    case Step::kUserCloses:
      return !scenario_.detaches;
    case Step::kDrain:
    case Step::kLook:
    case Step::kNewsLook:
      return reader.seen_head != reader.next;
    case Step::kRingCompare:
      return scenario_.event_loop ? !scenario_.helper_drops && !scenario_.cancels
                                  : scenario_.streams == 1 && !scenario_.helper_drops && !scenario_.cancels;
    case Step::kGiveHeld:
    case Step::kGiveCount:
    case Step::kGiveIsWaiting:
    case Step::kCreditLoad:
    case Step::kCreditZero:
    case Step::kNext:
    case Step::kMustGiveBack:
    case Step::kSetWaiting:
    case Step::kClearWaiting:
    case Step::kPoll:
    case Step::kPollCredit:
      return !scenario_.helper_drops;
    case Step::kAdvance:
    case Step::kNewsStopped:
    case Step::kStopSeen:
    case Step::kStopCheck:
    case Step::kFutexStop:
      return !scenario_.cancels;
    case Step::kPollAlive:
      return !scenario_.daemon_dies;
    default:
      return false;
  }
}

void World::step(ThreadId id, bool choice) {
  do {
    if (id == kControlThread)
      control_step();
    else if (id == kDiskThread)
      disk_step();
    else
      client_step(id, choice);
  } while (failure_ == nullptr && is_private(id));
  normalise();
}

// ---- What happens by itself

bool World::can_complete(Byte stream, Byte operation) const {
  if (scenario_.disk_is_stuck) return false;
  const ServedStream& served = s_.streams[stream].served;
  const auto status = operation == 0 ? served.open : served.reads[operation - 1U].status;
  return status == Read::Status::kSubmitted;
}

void World::complete(Byte stream, Byte operation) {
  if (s_.detached != 0) fail("the disk wrote into a connection that had been let go");
  ServedStream& served = s_.streams[stream].served;
  if (operation == 0) {
    served.open = Read::Status::kCompleted;
    return;
  }
  Read& read = served.reads[operation - 1U];
  read.status = Read::Status::kCompleted;
  if ((served.lent & (1U << read.slot)) != 0) fail("the disk wrote into a slot that was lent");
  s_.streams[stream].slots[read.slot] = content_of(read.generation, read.index);
}

bool World::can_kill_daemon() const {
  return scenario_.daemon_dies && s_.kernel.daemon_died == 0;
}
void World::kill_daemon() {
  drain_all(kDiskThread);
  drain_all(kControlThread);
  s_.kernel.daemon_died = 1;
}

bool World::can_kill_client() const {
  return scenario_.client_dies && s_.kernel.client_died == 0 && s_.kernel.daemon_died == 0;
}
void World::kill_client() {
  for (const ThreadId id : {kReader, kSecondReader, kHelper}) {
    drain_all(id);
    client(id) = {};
  }
  s_.kernel.client_died = 1;
  s_.kernel.client_hung_up = 1;
}

// ---- When nothing can happen any more

const char* World::wrong_at_rest() const {
  const bool is_daemon_dead = s_.kernel.daemon_died != 0;
  if (!is_daemon_dead && s_.disk.at != Step::kDiskSleep) return "deadlock: the disk thread does not get on";
  for (const ThreadId id : {kReader, kSecondReader, kHelper}) {
    if (s_.kernel.client_died != 0 || client(id).at == Step::kDone) continue;
    const char* const lost = lost_wake();
    return lost != nullptr ? lost : "deadlock: a thread of the client does not get on";
  }
  if (is_daemon_dead) return nullptr;
  if (s_.kernel.client_hung_up != 0) {
    if (s_.control != Step::kDone) return "the client has gone and its connection is still there";
    return nullptr;
  }
  for (Byte i = 0; i < scenario_.streams; ++i) {
    const Stream& stream = s_.streams[i];
    if (s_.words[word_of(i, kHead)] != stream.reader.next && stream.reader.is_draining == 0)
      return "something was published after the terminal";
    if (stream.reader.held != 0) return "a chunk was not given back";
  }
  return lost_wake();
}

const char* World::lost_wake() const {
  if (s_.kernel.daemon_died != 0) return nullptr;
  if (s_.disk.at == Step::kDiskSleep && s_.disk.is_attached != 0 && s_.disk.is_condemned == 0) {
    if (s_.words[kCommandTail] != s_.disk.command_seen)
      return "lost wake: the disk thread sleeps, and a command is there";
    for (Byte i = 0; i < scenario_.streams; ++i) {
      const ServedStream& served = s_.streams[i].served;
      const bool is_starved = served.place == ServedStream::Place::kStarved;
      if (is_starved && s_.words[word_of(i, kReturnTail)] != served.return_seen &&
          s_.streams[i].reader.is_done == 0)
        return "lost wake: the disk thread sleeps, and the credit that it waits for is there";
    }
  }
  if (s_.disk.at == Step::kDiskSleep && s_.words[kMailTail] != s_.disk.mail_seen)
    return "lost wake: the disk thread sleeps, and mail is there";
  for (const ThreadId id : {kReader, kSecondReader}) {
    const ClientThread& thread = client(id);
    const Reader& reader = s_.streams[thread.stream].reader;
    if (thread.at == Step::kAsleep && reader.stopped != 0)
      return "lost wake: a reader sleeps that was cancelled";
    if (thread.at == Step::kAsleep && s_.words[word_of(thread.stream, kHead)] != reader.next)
      return "lost wake: a reader sleeps, and something was published for it";
    if (thread.at != Step::kLoopWait) continue;
    for (Byte i = 0; i < scenario_.streams; ++i) {
      if (s_.words[word_of(i, kHead)] != s_.streams[i].reader.next)
        return "lost wake: the event loop sleeps, and something was published for it";
    }
  }
  return nullptr;
}

std::string Model::name(const Label& label) const {
  constexpr std::array kNames = {"disk thread", "control thread", "reader", "second reader", "helper"};
  const std::string who = kNames[label.thread];
  switch (label.what) {
    case Label::What::kDrain:
      return who + ": (its oldest store becomes visible)";
    case Label::What::kComplete:
      return "disk: (an operation completes)";
    case Label::What::kKillDaemon:
      return "(the daemon is killed)";
    case Label::What::kKillClient:
      return "(the client is killed)";
    case Label::What::kChoice:
      return who + ": (the other way) " + to_string(label.step);
    default:
      return who + ": " + to_string(label.step);
  }
}

}  // namespace nvr::model
