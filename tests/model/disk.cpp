// The daemon's steps: the control thread as far as it attaches and detaches, and the disk thread.
#include <bit>

#include "tests/model/world.h"

namespace nvr::model {
namespace {

using Serving = ServedStream::State;
using Place = ServedStream::Place;
using Status = Read::Status;

constexpr bool is_with_engine(Status status) {
  return status == Status::kSubmitted || status == Status::kCompleted;
}

constexpr Byte bit(Byte slot) {
  return byte(1U << slot);
}

}  // namespace

// ---- The control thread

void World::control_step() {
  switch (s_.control) {
    case Step::kControlAttach:
    case Step::kControlDetach:
      store_seq_cst(kControlThread, kMailTail, byte(load(kControlThread, kMailTail) + 1U));
      s_.control = s_.control == Step::kControlAttach ? Step::kControlRingAttach : Step::kControlRingDetach;
      return;
    case Step::kControlRingAttach:
    case Step::kControlRingDetach:
      s_.kernel.mail_edge = 1;
      s_.control = s_.control == Step::kControlRingAttach ? Step::kControlWait : Step::kControlDetached;
      return;
    case Step::kControlWait:
      s_.control = Step::kControlDetach;
      return;
    default:
      s_.control = Step::kDone;
      return;  // on_detached()
  }
}

// ---- The disk thread: take_all(), submit_operation(), reap_completions()

void World::disk_step() {
  Disk& d = s_.disk;
  switch (d.at) {
    case Step::kDiskMail:
      return take_mail();
    case Step::kDiskCommands:
      d.command_tail = load(kDiskThread, kCommandTail);
      if (byte(unsigned{d.command_tail} - d.command_seen) > std::bit_ceil(4U * scenario_.streams))
        fail("violation: the command ring moved further than it is long");
      d.at = Step::kDiskCommand;
      return;
    case Step::kDiskCommand:
      return take_command();
    case Step::kDiskOpenCredit: {
      take_credit(d.stream);
      ServedStream& served = s_.streams[d.stream].served;
      if (served.state != Serving::kIdle) fail("violation: OPEN before the terminal");
      ++served.generation;
      served.state = Serving::kQueued;
      served.place = Place::kOpen;
      served.has_published = 0;
      served.next = 0;
      d.at = Step::kDiskCommand;
      return;
    }
    case Step::kDiskStarved:
      return next_starved();
    case Step::kDiskCredit:
      take_credit(d.stream);
      if (s_.streams[d.stream].served.free != 0) {
        reschedule(d.stream);
        d.any = 1;
      }
      ++d.stream;
      d.at = Step::kDiskStarved;
      return;
    case Step::kDiskTaken:
      d.stream = 0;
      if (d.is_second_look != 0) {
        d.is_second_look = 0;
        const bool drains_now = mutant_ == Mutant::kDrainAfterLook;
        d.at = d.any != 0 ? Step::kDiskRetire : drains_now ? Step::kDiskDrain : Step::kDiskSleep;
      } else {
        d.busy = d.any;
        d.at = Step::kDiskSubmit;
      }
      d.any = 0;
      return;
    case Step::kDiskSubmit:
      return submit_next();
    case Step::kDiskSubmitCredit:
      return submit(d.stream);
    case Step::kDiskReap:
      return reap();
    case Step::kDiskEndWithError:
      return end_with(d.stream, Kind::kError, Step::kDiskReap);
    default:
      return disk_sleep_step();
  }
}

void World::take_mail() {
  Disk& d = s_.disk;
  if (load(kDiskThread, kMailTail) == d.mail_seen) {
    const bool listens = d.is_attached != 0 && d.is_condemned == 0;
    d.at = listens ? Step::kDiskCommands : Step::kDiskTaken;
    return;
  }
  d.any = 1;
  if (++d.mail_seen == 1) {  // attach()
    d.is_attached = 1;
    s_.kernel.is_doorbell_watched = 1;
    s_.kernel.doorbell_edge = s_.kernel.doorbell_count;
    return;
  }
  s_.kernel.is_doorbell_watched = 0;  // detach(): Doorbells::remove(), condemn()
  s_.kernel.doorbell_edge = 0;
  d.is_condemned = 1;
  for (Byte i = 0; i < scenario_.streams; ++i) {
    const Serving state = s_.streams[i].served.state;
    if (state != Serving::kIdle && state != Serving::kEnding) end_with(i, Kind::kClosed, Step::kDiskMail);
  }
  d.is_leaving = 1;
  finish_detaching();
}

void World::finish_detaching() {
  if (s_.disk.is_leaving == 0) return;
  for (Byte i = 0; i < scenario_.streams; ++i) {
    if (in_flight(i) > 0) return;
  }
  s_.disk.is_leaving = 0;
  s_.disk.is_attached = 0;
  s_.detached = 1;
}

// DiskService::take_commands(), one command.
void World::take_command() {
  Disk& d = s_.disk;
  if (d.command_seen == d.command_tail) {
    d.stream = 0;
    d.at = Step::kDiskStarved;
    return;
  }
  Command& cell = s_.commands[d.command_seen++ % std::bit_ceil(4U * scenario_.streams)];
  const Command command = cell;
  cell = {};
  d.any = 1;
  if (command.generation == 0) return fail("a command was taken that was not there");
  ServedStream& served = s_.streams[command.stream].served;
  if (command.is_open != 0) {
    if (command.generation != served.generation + 1) fail("violation: OPEN with a generation out of order");
    d.stream = command.stream;
    d.at = Step::kDiskOpenCredit;
    return;
  }
  if (command.generation != served.generation)
    fail("violation: CLOSE of a generation that is not the last one");
  if (served.state != Serving::kIdle && served.state != Serving::kEnding)
    end_with(command.stream, Kind::kClosed, Step::kDiskCommand);
}

// ServedStream::take_credit()
void World::take_credit(Byte stream) {
  ServedStream& served = s_.streams[stream].served;
  const Byte tail = load(kDiskThread, word_of(stream, kReturnTail));
  if (byte(unsigned{tail} - served.return_seen) > scenario_.window)
    return fail("violation: the return ring moved further than it is long");
  while (served.return_seen != tail) {
    Byte& cell = s_.streams[stream].returns[served.return_seen++ % scenario_.window];
    if (cell == 0) return fail("a returned slot was taken that was not there");
    const Byte slot = byte(cell - 1U);
    cell = 0;
    if ((served.lent & bit(slot)) == 0) return fail("violation: return of a slot that was not lent");
    served.lent = byte(served.lent & ~unsigned{bit(slot)});
    served.free |= bit(slot);
    s_.streams[stream].slots[slot] = 0;
  }
}

void World::next_starved() {
  Disk& d = s_.disk;
  while (d.stream < scenario_.streams && s_.streams[d.stream].served.place != Place::kStarved) ++d.stream;
  d.at = d.stream < scenario_.streams ? Step::kDiskCredit : Step::kDiskTaken;
}

void World::reschedule(Byte stream) {
  ServedStream& served = s_.streams[stream].served;
  const Byte allowed = served.has_published != 0 ? 2 : 1;
  if (served.state != Serving::kReading || served.next >= scenario_.chunks || in_flight(stream) >= allowed)
    return;
  if (served.reads[1].status != Status::kNone) return;  // the model has room for two, finished ones included
  served.place = served.free != 0 ? Place::kRead : Place::kStarved;
}

void World::submit_next() {
  Disk& d = s_.disk;
  for (d.stream = 0; d.stream < scenario_.streams; ++d.stream) {
    const Place place = s_.streams[d.stream].served.place;
    if (place != Place::kOpen && place != Place::kRead) continue;
    d.busy = 1;
    d.at = Step::kDiskSubmitCredit;
    return;
  }
  d.stream = 0;
  d.at = Step::kDiskReap;
}

// ServedStream::prepare(): one slot at a time.
void World::submit(Byte stream) {
  ServedStream& served = s_.streams[stream].served;
  take_credit(stream);
  served.place = Place::kNone;
  s_.disk.at = Step::kDiskSubmit;
  if (served.state == Serving::kQueued) {
    served.state = Serving::kOpening;
    served.open = Status::kSubmitted;
    return;
  }
  const auto slot = byte(static_cast<unsigned>(std::countr_zero(served.free)));
  served.free = byte(served.free & ~unsigned{bit(slot)});
  Read& read = served.reads[served.reads[0].status == Status::kNone ? 0 : 1];
  read = {Status::kSubmitted, slot, served.next++, served.generation};
  reschedule(stream);
}

// One completion, if there is one: ServedStream::on_finished() and reschedule().
void World::reap() {
  Disk& d = s_.disk;
  for (Byte i = 0; i < scenario_.streams; ++i) {
    ServedStream& served = s_.streams[i].served;
    const bool is_open = served.open == Status::kCompleted;
    std::size_t which = 0;
    while (which < 2 && served.reads[which].status != Status::kCompleted) ++which;
    if (!is_open && which == 2) continue;
    d.busy = 1;
    d.stream = i;
    if (is_open) {
      served.open = Status::kNone;
      if (served.state == Serving::kOpening) on_opened(i);
    } else if (served.state == Serving::kReading) {
      served.reads[which].status = Status::kFinished;
      publish_in_order(i);
    } else {  // closed meanwhile: what was read is nobody's
      served.free |= bit(served.reads[which].slot);
      if (which == 0) served.reads[0] = served.reads[1];
      served.reads[1] = {};
    }
    if (d.at == Step::kDiskReap) settle(i, Step::kDiskReap);
    reschedule(i);
    finish_detaching();
    return;
  }
  d.at = d.busy != 0 ? Step::kDiskMail : Step::kDiskAnnounce;
  d.busy = 0;
  d.stream = 0;
}

void World::on_opened(Byte stream) {
  ServedStream& served = s_.streams[stream].served;
  put(stream, Kind::kOpened, 0, 0);
  if (scenario_.chunks == 0) return end_with(stream, Kind::kEnd, Step::kDiskReap);
  served.state = Serving::kReading;
  if (served.free == 0) return publish(stream, Step::kDiskReap);
  s_.disk.at = Step::kDiskPublishQuietly;
}

void World::publish_in_order(Byte stream) {
  ServedStream& served = s_.streams[stream].served;
  bool published = false;
  while (served.reads[0].status == Status::kFinished) {
    const Read read = served.reads[0];
    served.reads[0] = served.reads[1];
    served.reads[1] = {};
    if (scenario_.fails_at == read.index + 1) {
      served.free |= bit(read.slot);
      if (!published) return end_with(stream, Kind::kError, Step::kDiskReap);
      served.place = Place::kNone;
      return publish(stream, Step::kDiskEndWithError);
    }
    served.lent |= bit(read.slot);
    served.has_published = 1;
    put(stream, Kind::kChunk, read.slot, read.index);
    published = true;
  }
  const bool is_complete = served.reads[0].status == Status::kNone && served.next >= scenario_.chunks;
  if (is_complete) return end_with(stream, Kind::kEnd, Step::kDiskReap);
  if (!published) return;
  publish(stream, Step::kDiskReap);
  if (scenario_.shows_early) s_.disk.at = Step::kDiskShow;
}

void World::end_with(Byte stream, Kind terminal, Step back) {
  ServedStream& served = s_.streams[stream].served;
  s_.disk.at = back;
  served.place = Place::kNone;
  served.terminal = terminal;
  served.state = Serving::kEnding;
  for (std::size_t i = 2; i-- > 0;) {  // reads that were finished out of order and will not be published
    if (served.reads[i].status != Status::kFinished) continue;
    served.free |= bit(served.reads[i].slot);
    if (i == 0) served.reads[0] = served.reads[1];
    served.reads[1] = {};
  }
  settle(stream, back);
}

// ServedStream::publish_terminal_if_settled()
void World::settle(Byte stream, Step back) {
  ServedStream& served = s_.streams[stream].served;
  if (served.state != Serving::kEnding) return;
  if (in_flight(stream) > 0 && mutant_ != Mutant::kTerminalEarly) return;
  served.state = Serving::kIdle;
  if (s_.disk.is_condemned != 0) return;
  put(stream, served.terminal, 0, 0);
  publish(stream, back);
}

Byte World::in_flight(Byte stream) const {
  const ServedStream& served = s_.streams[stream].served;
  unsigned count = is_with_engine(served.open) ? 1 : 0;
  for (const Read& read : served.reads) count += is_with_engine(read.status) ? 1 : 0;
  return byte(count);
}

void World::put(Byte stream, Kind kind, Byte slot, Byte index) {
  ServedStream& served = s_.streams[stream].served;
  Descriptor& cell = s_.streams[stream].descriptors[served.put++ % (2U * scenario_.window)];
  if (cell.kind != Kind::kNone) fail("a descriptor was overwritten before it was taken");
  cell = {kind, served.generation, slot, index};
}

void World::publish(Byte stream, Step back) {
  if (s_.disk.is_attached == 0 || s_.disk.is_condemned != 0) fail("published to a connection that has ended");
  s_.disk.stream = stream;
  s_.disk.back = back;
  s_.disk.at = Step::kDiskPublish;
}

// ---- DiskThread::sleep()

void World::disk_sleep_step() {
  Disk& d = s_.disk;
  switch (d.at) {
    case Step::kDiskAnnounce:
      if (d.is_attached != 0) {
        d.epoch = announced(d.epoch);
        store(kDiskThread, kNeedDoorbell, d.epoch, Mutant::kNeedDoorbellRelease);
      }
      d.is_second_look = mutant_ == Mutant::kNoSecondLook ? 0 : 1;
      d.at = mutant_ == Mutant::kNoSecondLook ? Step::kDiskSleep : Step::kDiskMail;
      return;
    case Step::kDiskSleep:
      d.at = Step::kDiskDrain;
      if (mutant_ != Mutant::kDrainAfterLook) return;
      s_.kernel.mail_edge = 0;  // only the connections' edges are taken at the wrong time
      d.at = Step::kDiskRetire;
      return;
    case Step::kDiskDrain:
      s_.kernel.doorbell_edge = 0;
      if (mutant_ != Mutant::kDrainAfterLook) s_.kernel.mail_edge = 0;
      d.at = mutant_ == Mutant::kDrainAfterLook ? Step::kDiskSleep : Step::kDiskRetire;
      return;
    case Step::kDiskRetire:
      if (d.is_attached != 0 && mutant_ != Mutant::kNoDiskRetire) {
        d.epoch = retired(d.epoch);
        store_seq_cst(kDiskThread, kNeedDoorbell, d.epoch);
      }
      d.at = Step::kDiskMail;
      return;
    default:
      return publish_step();
  }
}

// ---- ServedStream::publish()

void World::publish_step() {
  Disk& d = s_.disk;
  ServedStream& served = s_.streams[d.stream].served;
  switch (d.at) {
    case Step::kDiskPublishQuietly:
    case Step::kDiskPublish:
      store(kDiskThread, word_of(d.stream, kHead), served.put, Mutant::kHeadRelease);
      d.at = d.at == Step::kDiskPublish ? Step::kDiskWaiting : Step::kDiskReap;
      return;
    case Step::kDiskShow:
      store(kDiskThread, word_of(d.stream, kHead), served.put, Mutant::kHeadRelease);
      d.at = mutant_ == Mutant::kShownIsPublished ? d.back : Step::kDiskPublish;
      return;
    case Step::kDiskWaiting: {
      const Byte epoch = load(kDiskThread, word_of(d.stream, kWaiting));
      const bool rings = (epoch & 1) != 0 && epoch != served.rung_for;
      if (rings) served.rung_for = epoch;
      d.at = rings ? Step::kDiskFutexWake : Step::kDiskWantByte;
      return;
    }
    case Step::kDiskFutexWake: {
      bool any = false;
      for (ClientThread& thread : s_.clients) any |= thread.stream == d.stream && thread.wake(kHeadQueue);
      if (!any && mutant_ != Mutant::kVainRingCounts) served.rung_for = 0;
      d.at = Step::kDiskWantByte;
      return;
    }
    case Step::kDiskWantByte: {
      const Byte epoch = load(kDiskThread, kWantByte);
      const bool rings = (epoch & 1) != 0 && epoch != d.event_loop_rung_for;
      if (rings) d.event_loop_rung_for = epoch;
      d.at = rings ? Step::kDiskSend : d.back;
      if (!rings) d.back = Step::kDone;
      return;
    }
    case Step::kDiskSend:
      if (s_.kernel.client_hung_up == 0) ++s_.kernel.messages;
      d.at = d.back;
      d.back = Step::kDone;
      return;
    default:
      fail("no such step of the disk thread");
      return;
  }
}

}  // namespace nvr::model
