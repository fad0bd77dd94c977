// What the model of ring, wake, doorbell, close and death consists of: one connection, its two processes, and
// what the kernel keeps for them. Plain bytes, so that states can be compared.
//
// Memory is x86's: every thread has a store buffer, first in first out, that drains at any time; a thread
// sees its own stores at once. A seq_cst store drains the buffer before the next step; loads read past it.
// Calls of the kernel wait until it is empty (they take locks). Nothing else drains it: read-modify-writes of
// words that only one process knows (`held`, `returned_since_ring`, the mutexes) order nothing here, which is
// weaker than x86, so that the protocol is seen to stand on its own words alone. Ring cells are not buffered:
// in a first in first out buffer they always come before the index that shows them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "tests/model/steps.h"

namespace nvr::model {

using Byte = std::uint8_t;

constexpr Byte byte(unsigned value) {
  return static_cast<Byte>(value);
}

inline constexpr Byte kMaxStreams = 2;
inline constexpr Byte kMaxWindow = 4;

// ---- Words that more than one thread knows and that go through the store buffers.
enum Word : Byte {
  kCommandTail,
  kNeedDoorbell,
  kWantByte,
  kMailTail,        // Mailbox of the control thread to the disk thread
  kRungFor,         // Waker::rung_for_ of the client's threads for the disk thread
  kConnectionLock,  // internal::Connection::mutex_
  kStreamWords,     // the first of the streams': per stream those below
};
enum StreamWord : Byte { kHead, kWaiting, kReturnTail, kChannelLock, kWordsPerStream };

constexpr Byte word_of(Byte stream, StreamWord word) {
  return byte(kStreamWords + stream * unsigned{kWordsPerStream} + word);
}

// ---- Threads
enum ThreadId : Byte { kDiskThread, kControlThread, kReader, kSecondReader, kHelper, kThreads };

struct Store {
  Byte word = 0;
  Byte value = 0;
};
struct StoreBuffer {
  static constexpr Byte kCapacity = 4;
  Byte size = 0;
  std::array<Store, kCapacity> stores = {};
};

// ---- What lies in the rings
enum class Kind : Byte { kNone, kOpened, kChunk, kEnd, kError, kClosed };
struct Descriptor {
  Kind kind{};
  Byte generation = 0;
  Byte slot = 0;
  Byte index = 0;  // of the chunk in its file
};
struct Command {  // generation 0: none
  Byte is_open = 0;
  Byte stream = 0;
  Byte generation = 0;
};
// What the bytes of a chunk are; 0: nothing.
constexpr Byte content_of(Byte generation, Byte index) {
  return byte(generation * 16U + index + 1U);
}

// ---- The daemon
struct Read {  // an Operation of kind kRead
  enum class Status : Byte { kNone, kSubmitted, kCompleted, kFinished };
  Status status{};
  Byte slot = 0;
  Byte index = 0;
  Byte generation = 0;
};

struct ServedStream {
  enum class State : Byte { kIdle, kQueued, kOpening, kReading, kEnding };
  enum class Place : Byte { kNone, kOpen, kRead, kStarved };
  State state{};
  Place place{};
  Byte generation = 0;
  Byte put = 0;          // descriptors written
  Byte rung_for = 0;     // the Waker for `waiting`
  Byte return_seen = 0;  // ReturnConsumer
  Byte free = 0;         // slots, by bit
  Byte lent = 0;
  Byte next = 0;                   // chunk to read
  Read::Status open{};             // the operation of kind kOpen
  std::array<Read, 2> reads = {};  // in file order
  Byte has_published = 0;          // a chunk of this generation
  Kind terminal{};
};

struct Disk {
  Step at = Step::kDiskMail;
  Step back{};  // where publish() returns to
  Byte is_second_look = 0;
  Byte any = 0;           // what take_all() says
  Byte busy = 0;          // what serve() found
  Byte stream = 0;        // that is being looked at
  Byte command_tail = 0;  // as loaded
  Byte command_seen = 0;
  Byte mail_seen = 0;
  Byte epoch = 0;  // the Sleeper's value
  Byte event_loop_rung_for = 0;
  Byte is_attached = 0;  // in service_->connections()
  Byte is_leaving = 0;
  Byte is_condemned = 0;
};

// ---- The client
struct Chunk {  // content 0: none
  Byte slot = 0;
  Byte content = 0;
};

// Channel and StreamReader, and the user's program for them.
struct Reader {
  enum class Phase : Byte { kNone, kPromised, kClaimed, kOpening, kReading, kEnded };
  // internal::Channel
  Byte next = 0;       // DescriptorConsumer
  Byte seen_head = 0;  // DescriptorConsumer
  Byte epoch = 0;      // the Sleeper's value
  Byte generation = 0;
  Byte is_draining = 0;
  Byte held = 0;
  Byte returned_since_ring = 0;
  Byte is_reader_waiting = 0;
  Byte stop_word = 0;
  Byte returned = 0;  // ReturnProducer
  // internal::StreamReader
  Phase phase{};
  Byte position = 0;  // of the next chunk
  Byte polled_in_vain = 0;
  Byte is_open = 0;
  Byte stopped = 0;
  Byte stop_lock = 0;
  // The user's
  Byte opened = 0;  // streams, one after the other
  Byte is_done = 0;
  std::array<Chunk, kMaxWindow> chunks = {};  // oldest first
};

struct Stream {
  std::array<Descriptor, 2 * kMaxWindow> descriptors = {};  // R
  std::array<Byte, kMaxWindow> slots = {};                  // R; their content
  std::array<Byte, kMaxWindow> returns = {};                // W; slot + 1
  ServedStream served;
  Reader reader;
};

enum Queue : Byte { kHeadQueue = 1, kStopQueue = 2 };

struct ClientThread {
  Step at = Step::kDone;
  Byte depth = 0;
  std::array<Step, 4> back = {};  // return addresses
  Byte stream = 0;
  Byte result = 0;          // of has_news() or drain()
  Byte terminal_taken = 0;  // argument of leave_channel()
  Byte is_dead = 0;         // the daemon was found dead
  Byte epoch = 0;           // need_doorbell as loaded
  Byte stop_seen = 0;
  Byte futex_head = 0;  // what the futex word was when there was no news
  Byte queues = 0;      // the kernel's: the words that it waits on
  Byte is_woken = 0;
  Byte dropped = 0;  // slot that give_back() is at
  Command command;   // that post() is at

  // The kernel takes it off the queue and lets it run. False: it does not wait there.
  [[nodiscard]] bool wake(Byte queue) {
    if ((queues & queue) == 0) return false;
    queues = byte(queues & ~unsigned{queue});
    is_woken = 1;
    return true;
  }
};

// The kernel's
struct Kernel {
  Byte doorbell_edge = 0;
  Byte is_doorbell_watched = 0;
  Byte doorbell_count = 0;  // written at all?
  Byte mail_edge = 0;
  Byte messages = 0;  // on the client's socket
  Byte client_hung_up = 0;
  Byte daemon_died = 0;
  Byte client_died = 0;
};

struct State {
  std::array<Byte, kStreamWords + unsigned{kMaxStreams}* kWordsPerStream> words = {};
  std::array<StoreBuffer, kThreads> buffers = {};
  Kernel kernel;
  std::array<Command, 4 * kMaxStreams> commands = {};  // W
  Byte commands_put = 0;                               // CommandProducer
  Disk disk;
  Step control = Step::kControlAttach;
  Byte detached = 0;  // the disk thread has let go of the connection
  std::array<ClientThread, 3> clients = {};
  std::array<Chunk, kMaxWindow> to_drop = {};    // handed to the helper
  std::array<Stream, kMaxStreams> streams = {};  // last: a state with fewer has fewer bytes
};

}  // namespace nvr::model
