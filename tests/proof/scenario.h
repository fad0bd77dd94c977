// What is explored: who takes part and what they do, what is broken on purpose, and the memory they share.
#pragma once

#include <array>
#include <deque>
#include <string>

#include "client/src/unrung_credit.h"
#include "shm/ring.h"
#include "shm/wake.h"
#include "tests/proof/memory.h"

namespace nvr::proof {

using DescriptorProducer = shm::BasicDescriptorProducer<Memory>;
using DescriptorConsumer = shm::BasicDescriptorConsumer<Memory>;
using ReturnProducer = shm::BasicReturnProducer<Memory>;
using ReturnConsumer = shm::BasicReturnConsumer<Memory>;
using CommandProducer = shm::BasicCommandProducer<Memory>;
using CommandConsumer = shm::BasicCommandConsumer<Memory>;
using Sleeper = shm::BasicSleeper<Memory>;
using Waker = shm::BasicWaker<Memory>;
using UnrungCredit = internal::BasicUnrungCredit<Memory>;

inline constexpr std::uint32_t kFirstIndex = 0xfffffffd;  // every index wraps after three steps

// What breaks the sequences around the rings; what breaks the rings and the wake protocol themselves is a
// weakened word (World::WordInfo), or a patch of the sources.
enum class Mutant {
  kNone,
  kNoSecondLook,
  kDrainAfterLook,
  kRetiresBeforeSleep,
  kShownIsPublished,
  kNoValueCompare,
  kVainRingCounts,
  kRecordsBeforeRing,
  kNoRingForCredit,
  kWaitingSetLate,
  kStopSeenLate,
  kTerminalEarly,
  kDispatchAnnouncesFirst,
  kNoLookAfterDeath,
  kSmallCommandRing,
  // Harmless: the kernel's wait does the same.
  kNoReaderSecondLook,
};

struct Scenario {
  const char* name;
  std::uint32_t streams = 1;
  std::uint32_t window = 2;  // slots of a stream
  std::uint32_t threshold =
      1;                     // slots given back before the daemon is rung for; in the product half the window
  std::uint32_t chunks = 3;  // of each recording
  std::uint32_t generations = 1;
  std::uint32_t keep = 0;      // chunks that the user holds on to
  bool shows_early = false;    // each chunk can be seen before its reader is woken for it
  bool event_loop = false;     // one thread for all streams, with dispatch() and try_next()
  bool helper_drops = false;   // another thread drops the chunks
  bool cancels = false;        // another thread cancels the first generation, at any time
  bool finishes = false;       // the recording grows until another thread says FINISH
  bool abandons = false;       // the reader may close the stream after any chunk
  bool posts_all = false;      // OPEN, FINISH and CLOSE in one go, generation by generation
  bool has_engine = false;     // reads are done by the kernel, and complete at any time
  bool disk_is_stuck = false;  // has_engine, and no read completes
  bool daemon_dies = false;    // at any time
  bool two_wakers = false;     // two threads return a slot of a starved stream each, and share the Waker
  // It begins when the window's chunks are lent: all but the last, which is the helper's to drop, are the
  // reader's.
  bool begins_starved = false;

  [[nodiscard]] bool is_starved_at_first() const { return two_wakers || begins_starved; }
  // Descriptors published and taken, generations opened, before it begins.
  [[nodiscard]] std::uint32_t descriptors_at_first() const { return is_starved_at_first() ? window + 1 : 0; }
  [[nodiscard]] std::uint32_t generations_at_first() const { return is_starved_at_first() ? 1 : 0; }
};

enum ThreadId : std::size_t { kDisk, kReader, kHelper, kEngine };
constexpr ThreadMask mask(std::size_t thread) {
  return ThreadMask{1} << thread;
}
inline constexpr ThreadMask kClients = mask(kReader) | mask(kHelper);

// What the kernel's calls are about, then the locks.
enum Object : std::size_t { kDoorbellFile, kSocket, kFutex, kClientLock, kHandOver, kEngineQueue };
enum Flag : std::uint32_t {
  kDoorbell = 1,
  kMessage = 2,
  kDead = 4,
  kUnlocked = 8,  // Connection::mutex_, Channel::mutex and StreamReader::stop_mutex_ in one
  kHelperDone = 16,
  kSubmitted = 32,
  kCompleted = 64,
  kReaderDone = 128,
  kHelperDropped = 65536,
  kWoken = 256,    // of thread 0; the others' follow
  kToDrop = 4096,  // slot 0 is the helper's to drop; the others' follow
};
constexpr std::uint32_t woken(std::size_t thread) {
  return kWoken << thread;
}

constexpr std::uint32_t content_of(std::uint32_t generation, std::uint32_t chunk) {
  return (generation - kFirstIndex) * 16 + chunk + 1;
}

// R, W and what the client's threads share, as far as they take part.
struct Wires {
  struct Stream {
    Stream(World& world, const Scenario& scenario, std::uint32_t index);
    Stream(World& world, const Scenario& scenario, ThreadMask both, ThreadMask returners, ThreadMask holders,
           ThreadMask stoppers);
    Memory::PublicationHeader publication;
    std::vector<Memory::DescriptorCell> descriptors;
    Word waiting;
    Memory::CreditHeader credit;
    std::vector<Memory::ReturnCell> returns;
    std::vector<Plain<std::uint32_t>> slots;
    // The client's
    Plain<ReturnProducer> return_producer;
    UnrungCredit unrung;
    Word held;
    Word stop_word;
    Word stopped;
    Plain<std::uint32_t> is_open;  // this and what follows: under StreamReader::stop_mutex_
    Plain<std::uint32_t> is_finished;
    Plain<std::uint32_t> generation;
  };
  Wires(World& world, const Scenario& scenario, Mutant mutant);

  // ---- What several threads of the client do, as client/src/connection.cpp does it
  void lock();
  void unlock();
  void post(shm::Opcode opcode, std::uint32_t stream);  // under the lock, if there is one
  void give_back(std::uint32_t stream, std::uint32_t slot);
  void put_return(std::uint32_t stream, std::uint32_t slot);
  void ring_for_credit(std::uint32_t stream);
  void ring();
  // FUTEX_WAKE; false: nobody was woken.
  static bool futex_wake(const Word& word);

  const Scenario& scenario;
  Mutant mutant;
  Word need_doorbell;
  Word want_byte;
  Memory::WriteHeader commands;
  std::vector<Memory::CommandCell> command_cells;
  std::deque<Stream> streams;
  // The client's
  Plain<CommandProducer> command_producer;
  Waker daemon;
  // The engine's
  Plain<std::uint32_t> job_slot;
  Plain<std::uint32_t> job_content;
};

}  // namespace nvr::proof
