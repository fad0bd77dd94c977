// The protocol between nvr-readerd and its clients, version 1. This header is the specification.
//
// A connection is one SOCK_SEQPACKET Unix socket and two shared-memory segments (memfds):
//
//   R  written by the daemon only (sealed FUTURE_WRITE|SHRINK|GROW|SEAL; the client's descriptor is
//   read-only)
//   +-----------------------+---------------------------------------+--------------------------------------+
//   | ReadHeader            | per stream: head, descriptor ring     | per stream: `slots` slots of 64 KiB  |
//   +-----------------------+---------------------------------------+--------------------------------------+
//   W  written by the client only (sealed SHRINK|GROW|SEAL; mapped read-only by the daemon)
//   +-----------------------+-----------------------+---------------------------------------------------+
//   | WriteHeader           | command ring          | per stream: waiting word, return ring (slot numbers) |
//   +-----------------------+-----------------------+---------------------------------------------------+
//
// Handshake     client                                   daemon
//               HELLO {version, streams, slots}   ->
//                                                 <-     WELCOME {geometry, limits, first_index} + fds R, W,
//                                                 doorbell
//               READY                             ->     (from here on the disk thread serves the connection)
//                                                 <-     GOODBYE {code, text} before every close by the
//                                                 daemon
//   HELLO is due within a second of the connect, READY within a second of WELCOME. `streams = 0` asks for a
//   control connection: no segments, no descriptors; after READY it may ask: STATUS, from version 1.1 on
//   STREAMS, STALL_LOG and DISCONNECT, and from 1.2 on METRICS. Each is answered by a text in UTF-8 in
//   STATUS_PART messages: JSON, and METRICS in Prometheus' text form. One question at a time: what is asked
//   before the answer to the question before has been sent is dropped.
//
// Indices       free-running u32, starting at `first_index`; ring positions are `index & (capacity - 1)`.
//               What is pending is always `published - seen`, and it is never more than the capacity.
// Commands      OPEN{generation}, FINISH{generation} if that follows a growing file, then CLOSE{generation},
//               per stream. Generations of a stream count up by one
// from
//               first_index + 1. OPEN is legal only after the client has taken the terminal descriptor of the
//               generation before. A CLOSE or FINISH that meets its terminal on the way is
//               ignored.
// Descriptors   of a generation: at most one OPENED, then chunks in file order, then exactly one terminal.
// Credit        a slot is lent by a CHUNK descriptor and comes back by its number through the return ring.
// Wakes         each of the three sleepers (stream in futex wait, client in an event loop, disk thread in
// epoll)
//               announces its sleep in an *epoch word* that it alone writes: odd means "asleep or about to
//               be". The other side publishes, then reads the word, and rings once for each odd value it has
//               not rung for. Publish-then-read on one side and announce-then-look-again on the other are all
//               seq_cst: one of the two always sees the other.
//
// All integers are little-endian and of fixed width; no pointers, no bool, no size_t. Words of different
// writers lie at least 128 bytes apart (two lines: adjacent-line prefetch pulls pairs).
//
// Growth        A minor version adds; it changes no length and no meaning. Reserved fields are zero, and bits
//               without a name are not set. A receiver that finds it otherwise in HELLO, READY, a question or
//               a command ends the connection: for a reserved field or a tail with InvalidArgument, for
//               features with FailedPrecondition. A client refuses such a WELCOME; GOODBYE it believes.
//   A minor version that gives a reserved field a meaning uses it only towards a peer whose version_minor
//   says that it knows. HELLO is sent before the client knows the daemon's, so it grows by `features` alone:
//   each bit asks for something without which the client does not want to be served. A daemon that lacks one
//   refuses, naming the bits, and the client may connect again without them. WELCOME repeats the bits that
//   are in force: those that were asked for.
//   In R and W, what lies between the fields of a header is not looked at: there a daemon may tell more.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "nvr/recording.h"

namespace nvr::shm {

// ---- Versions and limits
// -------------------------------------------------------------------------------------

inline constexpr std::uint32_t kMagic = 0x3152564e;  // "NVR1"
inline constexpr std::uint16_t kVersionMajor = 1;    // another major version is refused, naming both
// 1: STREAMS, STALL_LOG, DISCONNECT. 2: METRICS. 3: OPENED tells the birth time, DiskState for how long. A
// daemon of an older minor version ends a client that sends what it does not know, so look at WELCOME first.
inline constexpr std::uint16_t kVersionMinor = 3;

inline constexpr std::uint32_t kSlotBytes =
    65536;                                     // a chunk is at most this; chunk k starts at begin + k * 65536
inline constexpr std::uint32_t kMinSlots = 2;  // a generation's OPENED and terminal need no slot but a place
inline constexpr std::uint32_t kMaxSlots = 64;     // the daemon's bitmap of lent slots is one u64
inline constexpr std::uint32_t kMaxStreams = 256;  // per connection
inline constexpr std::size_t kWriterDistance = 128;
inline constexpr std::uint32_t kFirstIndex = 0xfffffff0;  // sixteen steps before every index wraps
inline constexpr std::uint32_t kHandshakeMs = 1000;
inline constexpr std::uint32_t kHeartbeatMs = 100;  // the control thread's period while streams are open

static_assert(std::endian::native == std::endian::little, "the protocol is little-endian");
static_assert(std::atomic<std::uint32_t>::is_always_lock_free &&
              std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(sizeof(std::atomic<std::uint32_t>) == 4 && sizeof(std::atomic<std::uint64_t>) == 8);

using Word = std::atomic<std::uint32_t>;
using LongWord = std::atomic<std::uint64_t>;

// ---- The socket's messages
// ------------------------------------------------------------------------------------

enum class MessageType : std::uint16_t {
  kHello = 1,
  kWelcome = 2,
  kReady = 3,
  kGoodbye = 4,
  kPublished = 5,  // daemon -> client: something was published since `want_byte` was last raised
  // Control connection:
  kStatus = 6,       // asks for the status
  kStatusPart = 7,   // one piece of an answer
  kStreams = 8,      // asks for every open stream: who, what, where, how long it waits and for what
  kStallLog = 9,     // asks for the recent slow and failed operations of the disk
  kDisconnect = 10,  // ends a connection of somebody's; for root and the daemon's own user
  kMetrics = 11,     // asks for the metrics, as --metrics serves them
};

struct MessageHeader {
  std::uint32_t magic = kMagic;
  MessageType type{};
  std::uint16_t length = 0;  // of the whole message; equals what the socket delivered
};
static_assert(sizeof(MessageHeader) == 8);

inline constexpr std::uint32_t kKnownFeatures = 0;  // none defined

struct Hello {
  MessageHeader header{kMagic, MessageType::kHello, 32};
  std::uint16_t version_major = kVersionMajor;
  std::uint16_t version_minor = kVersionMinor;
  std::uint32_t features = 0;          // that the client cannot do without; kKnownFeatures so far
  std::uint32_t streams = 0;           // 0: control connection
  std::uint32_t slots_per_stream = 0;  // a power of two, kMinSlots..kMaxSlots
  std::uint64_t reserved = 0;
};
static_assert(sizeof(Hello) == 32);

struct Welcome {
  MessageHeader header{kMagic, MessageType::kWelcome, 328};
  std::uint16_t version_major = kVersionMajor;
  std::uint16_t version_minor = kVersionMinor;
  std::uint32_t features = 0;  // as asked for
  std::uint32_t streams = 0;   // as asked for
  std::uint32_t slots_per_stream = 0;
  std::uint32_t first_index = 0;
  std::uint32_t max_streams = 0;       // limits of this daemon, for messages
  std::uint64_t max_client_bytes = 0;  // --client-memory
  std::uint64_t read_bytes = 0;        // sizes of R and W; equal to what Geometry computes
  std::uint64_t write_bytes = 0;
  std::uint64_t instance = 0;  // differs between any two starts of a daemon
  char directory[256] = {};    // --dir, for messages; cut and NUL-terminated
  std::uint64_t reserved = 0;
};
static_assert(sizeof(Welcome) == 328);

struct Ready {
  MessageHeader header{kMagic, MessageType::kReady, 8};
};
static_assert(sizeof(Ready) == 8);

struct Goodbye {
  MessageHeader header{kMagic, MessageType::kGoodbye, 256};
  std::uint32_t code = 0;  // nvr::Code
  std::uint32_t reserved = 0;
  char text[240] = {};  // for a person; NUL-terminated
};
static_assert(sizeof(Goodbye) == 256);

struct Published {
  MessageHeader header{kMagic, MessageType::kPublished, 8};
};
static_assert(sizeof(Published) == 8);

struct StatusRequest {
  MessageHeader header{kMagic, MessageType::kStatus, 8};
};
static_assert(sizeof(StatusRequest) == 8);

struct StreamsRequest {
  MessageHeader header{kMagic, MessageType::kStreams, 8};
};
static_assert(sizeof(StreamsRequest) == 8);

struct StallLogRequest {
  MessageHeader header{kMagic, MessageType::kStallLog, 8};
};
static_assert(sizeof(StallLogRequest) == 8);

struct MetricsRequest {
  MessageHeader header{kMagic, MessageType::kMetrics, 8};
};
static_assert(sizeof(MetricsRequest) == 8);

// Answered by {"disconnected": {"connection", "pid", "uid"}} or {"error": {"code", "message"}}, `code` being
// a nvr::Code. Who is disconnected gets GOODBYE {Aborted}.
struct DisconnectRequest {
  MessageHeader header{kMagic, MessageType::kDisconnect, 16};
  std::uint32_t connection = 0;  // as STATUS names it
  std::uint32_t reserved = 0;
};
static_assert(sizeof(DisconnectRequest) == 16);

inline constexpr std::size_t kStatusPartBytes = 16384;

struct StatusPart {
  MessageHeader header{kMagic, MessageType::kStatusPart, 0};  // length counts the text that is there
  std::uint32_t total = 0;                                    // bytes of the whole text (JSON, UTF-8)
  std::uint32_t offset = 0;                                   // of this piece
  char text[kStatusPartBytes] = {};
};
static_assert(offsetof(StatusPart, text) == 16);

inline constexpr std::size_t kMaxMessageBytes = sizeof(StatusPart);

// ---- Commands (W, client -> disk thread)
// -----------------------------------------------------------------------

enum class Opcode : std::uint32_t {
  kOpen = 1,
  kClose = 2,
  kFinish = 3,  // the file that the stream follows is complete: what is there is delivered, then END
};

inline constexpr std::uint16_t kOpenToEnd =
    1;  // `end` is 0; the range ends where the file ends when it is opened
inline constexpr std::uint16_t kOpenStatOnly = 2;  // OPENED, then END; no chunk is read
// The file is still being written. The range may end beyond it, or with kOpenToEnd nowhere; it is delivered
// as the file grows, in whole chunks, until the range ends, FINISH comes, or the file has not grown for
// `quiet_ms`: then comes what is left, and END. Not with kOpenStatOnly, nor with CachePolicy::kDirect.
inline constexpr std::uint16_t kOpenFollow = 4;
inline constexpr std::uint16_t kOpenKnownFlags = kOpenToEnd | kOpenStatOnly | kOpenFollow;

struct Command {
  Opcode opcode{};
  std::uint32_t stream = 0;
  std::uint32_t generation = 0;
  Priority priority = Priority::kPlayback;
  CachePolicy cache = CachePolicy::kNormal;
  std::uint16_t flags = 0;
  std::uint64_t recording = 0;  // composite id
  std::uint64_t begin = 0;      // bytes; begin < end unless kOpenToEnd
  std::uint64_t end = 0;        // exclusive
  std::uint64_t quiet_ms = 0;   // with kOpenFollow, at least 1 (UINT64_MAX: for ever); else 0
  std::uint64_t reserved[2] = {};
};
static_assert(sizeof(Command) == 64 && std::is_trivially_copyable_v<Command>);
static_assert(offsetof(Command, priority) == 12 && offsetof(Command, recording) == 16 &&
              offsetof(Command, end) == 32 && offsetof(Command, quiet_ms) == 40);

// A place in the command ring. Eight words, so that the daemon's copy reads each of them exactly once.
struct alignas(64) CommandCell {
  LongWord words[8];
};
static_assert(sizeof(CommandCell) == sizeof(Command));

// ---- Descriptors (R, disk thread -> client)
// --------------------------------------------------------------------

enum class DescriptorKind : std::uint16_t {
  kOpened = 1,  // `file_*` are valid, and `offset` is the file's birth time
  kChunk = 2,   // `slot`, `length`, `offset` are valid; lends the slot
  // Terminals: the last of a generation, published when nothing of it is in flight any more. They need no
  // slot.
  kEnd = 3,     // every byte of the range was delivered
  kError = 4,   // `code`, `sys_errno`, `detail`, `offset`, `file_size` are valid
  kClosed = 5,  // the answer to CLOSE
};

// What an error descriptor is about, so that the client can say it in a sentence.
enum class Detail : std::uint16_t {
  kNone = 0,
  kOpenFailed = 1,      // sys_errno says why
  kNotRegular = 2,      // a directory, FIFO, device, socket or symbolic link
  kRangeBeyondEnd = 3,  // file_size is the file's length
  kReadFailed = 4,      // sys_errno, at `offset`
  kTruncated = 5,       // the file became shorter; file_size is its length now
  // A bound on open files and other descriptors; nothing was read. sys_errno 0: this user's; EMFILE: the
  // daemon's; ENFILE: the machine's. file_size is the bound, 0 where the kernel said so.
  kTooManyOpen = 6,
  kNotSupported = 7,  // the engine cannot do what the cache policy asks for
  kMapFailed = 8,     // sys_errno; the range could not be mapped
  kDiskThreadDied = 9,
};

struct alignas(64) Descriptor {
  std::uint32_t generation = 0;
  DescriptorKind kind{};
  std::uint16_t slot = 0;
  std::uint32_t length = 0;  // bytes in the slot, 1..kSlotBytes
  std::uint16_t code = 0;    // nvr::Code
  Detail detail = Detail::kNone;
  std::int32_t sys_errno = 0;
  std::uint32_t reserved = 0;
  // In the file. With kOpened, from version 1.3 on: when the file was created, in nanoseconds since the epoch
  // as a signed number. 0: its file system does not tell. An inode number is given to another file as soon as
  // its file is gone; with this it names one file.
  std::uint64_t offset = 0;
  std::uint64_t file_device = 0;
  std::uint64_t file_inode = 0;
  std::uint64_t file_size = 0;
  std::int64_t file_mtime_ns = 0;  // since the epoch
};
static_assert(sizeof(Descriptor) == 64 && std::is_trivially_copyable_v<Descriptor>);
static_assert(offsetof(Descriptor, code) == 12 && offsetof(Descriptor, offset) == 24 &&
              offsetof(Descriptor, file_mtime_ns) == 56);

[[nodiscard]] constexpr bool is_terminal(DescriptorKind kind) {
  return kind == DescriptorKind::kEnd || kind == DescriptorKind::kError || kind == DescriptorKind::kClosed;
}

// ---- R
// -----------------------------------------------------------------------------------------------------------

enum class DiskOperation : std::uint32_t { kNone = 0, kOpen = 1, kRead = 2 };

// The oldest operation that the disk has not answered. Written by the control thread; `sequence` is odd while
// it writes (a seqlock with every access seq_cst: it changes a few times a second at most).
struct alignas(kWriterDistance) DiskState {
  Word sequence;
  Word operation;  // DiskOperation; kNone: nothing has been in flight for longer than a heartbeat
  // The daemon's CLOCK_MONOTONIC when the operation was handed to the disk. For daemons before 1.3: a client
  // in another time namespace has another clock.
  LongWord since_ns;
  LongWord recording;  // composite id
  LongWord offset;     // in the file
  Word refuses_opens;  // 1: a library posts no OPEN now, and answers Unavailable in the daemon's place
  LongWord stuck_ns;   // for how long the operation had been on the disk when this was written; 0 before 1.3
  LongWord silent_ns;  // of these, for how long the disk had answered nothing, not even others; 0 before 1.3
};
static_assert(sizeof(DiskState) == kWriterDistance && offsetof(DiskState, since_ns) == 8 &&
              offsetof(DiskState, refuses_opens) == 32 && offsetof(DiskState, stuck_ns) == 40 &&
              offsetof(DiskState, silent_ns) == 48);

struct alignas(4096) ReadHeader {
  // Constant once the client can see it.
  std::uint32_t magic = kMagic;
  std::uint16_t version_major = kVersionMajor;
  std::uint16_t version_minor = kVersionMinor;
  std::uint64_t instance = 0;
  // Epoch word of the disk thread: odd while it sleeps or is about to. Written by the disk thread.
  alignas(kWriterDistance) Word need_doorbell;
  // Written by the control thread while the connection has open streams, every kHeartbeatMs.
  alignas(kWriterDistance) LongWord heartbeat;  // counts; what matters is that it moves
  DiskState disk;
};
static_assert(sizeof(ReadHeader) == 4096);
static_assert(offsetof(ReadHeader, need_doorbell) == 128 && offsetof(ReadHeader, heartbeat) == 256 &&
              offsetof(ReadHeader, disk) == 384);

// Per stream; 2 * slots descriptors follow it.
struct alignas(kWriterDistance) PublicationHeader {
  Word head;  // futex word; index after the last published descriptor. Written by the disk thread.
};
static_assert(sizeof(PublicationHeader) == kWriterDistance);

// ---- W
// -----------------------------------------------------------------------------------------------------------

struct alignas(4096) WriteHeader {
  Word command_tail;                        // index after the last posted command
  alignas(kWriterDistance) Word want_byte;  // epoch word of the client's event loop
};
static_assert(sizeof(WriteHeader) == 4096 && offsetof(WriteHeader, want_byte) == 128);

// Per stream; `slots` words (the return ring: slot numbers) follow it.
struct alignas(kWriterDistance) CreditHeader {
  Word waiting;                               // epoch word of the stream's blocked reader
  alignas(kWriterDistance) Word return_tail;  // index after the last returned slot
};
static_assert(sizeof(CreditHeader) == 2 * kWriterDistance);

[[nodiscard]] constexpr bool is_asleep(std::uint32_t epoch) {
  return (epoch & 1) != 0;
}

// ---- Where everything lies
// ------------------------------------------------------------------------------------

[[nodiscard]] constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Offsets in bytes from the start of R or W. Pure; `is_valid()` is the precondition of everything else.
struct Geometry {
  std::uint32_t streams = 0;
  std::uint32_t slots = 0;  // per stream: its window

  [[nodiscard]] constexpr bool is_valid() const {
    return streams >= 1 && streams <= kMaxStreams && slots >= kMinSlots && slots <= kMaxSlots &&
           std::has_single_bit(slots);
  }

  // Not yet taken by the client are at most: every lent slot's chunk, one OPENED, one terminal.
  [[nodiscard]] constexpr std::uint32_t descriptor_capacity() const { return 2 * slots; }
  // Not yet taken by the daemon are at most, per stream: FINISH and CLOSE of a generation that has just ended
  // by itself, OPEN, FINISH and CLOSE of the next. Eight rather than five per stream, for the power of two.
  [[nodiscard]] constexpr std::uint32_t command_capacity() const { return std::bit_ceil(8 * streams); }

  [[nodiscard]] constexpr std::uint64_t publication_bytes() const {
    return sizeof(PublicationHeader) + std::uint64_t{descriptor_capacity()} * sizeof(Descriptor);
  }
  [[nodiscard]] constexpr std::uint64_t publication_offset(std::uint32_t stream) const {
    return sizeof(ReadHeader) + stream * publication_bytes();
  }
  [[nodiscard]] constexpr std::uint64_t slot_offset(std::uint32_t stream, std::uint32_t slot) const {
    return round_up(publication_offset(streams), 4096) + (std::uint64_t{stream} * slots + slot) * kSlotBytes;
  }
  [[nodiscard]] constexpr std::uint64_t read_bytes() const { return slot_offset(streams, 0); }

  [[nodiscard]] constexpr std::uint64_t command_offset() const { return sizeof(WriteHeader); }
  [[nodiscard]] constexpr std::uint64_t credit_bytes() const {
    return sizeof(CreditHeader) + round_up(std::uint64_t{slots} * sizeof(Word), kWriterDistance);
  }
  [[nodiscard]] constexpr std::uint64_t credit_offset(std::uint32_t stream) const {
    return round_up(command_offset() + std::uint64_t{command_capacity()} * sizeof(CommandCell),
                    kWriterDistance) +
           stream * credit_bytes();
  }
  [[nodiscard]] constexpr std::uint64_t write_bytes() const { return round_up(credit_offset(streams), 4096); }
};

// The largest connection stays far below 2^32 slots and 2^40 bytes, so no sum above can overflow.
static_assert(Geometry{kMaxStreams, kMaxSlots}.read_bytes() < (std::uint64_t{1} << 31));
static_assert(Geometry{kMaxStreams, kMaxSlots}.descriptor_capacity() >= kMaxSlots + 2);
static_assert(Geometry{1, kMinSlots}.descriptor_capacity() >= kMinSlots + 2);

}  // namespace nvr::shm
