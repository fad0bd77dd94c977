// The client library of nvr-readerd: recordings from disk, without ever touching the disk.
//
//   auto client = nvr::Client::connect("/run/nvr-readerd/disk1.sock");              // Result<Client>
//   if (!client) return report(client.error());
//   auto stream = client->open({.recording = {3, 1842086}, .begin = 12345, .end = 200000001});
//   for (auto& chunk : *stream) {                      // ends after the last chunk, or after one error
//     if (!chunk) return report(chunk.error());        // Result<Chunk>: the error cannot be overlooked
//     send(chunk->bytes());                            // valid until the Chunk is dropped
//   }
//
// Whatever the disk does, a call returns a chunk, an error, or DeadlineExceeded in time: this process never
// opens, maps or faults on a sample file. Chunks are views of memory that the daemon filled; nothing is
// copied.
//
// Threads: a Client may be used from any thread, a Stream from one thread at a time (cancel() and close()
// from any), a Chunk may be dropped anywhere, in any order. Use nothing of these in a child after fork().
//
// Lifetime: Streams may outlive their Client, Chunks may outlive Stream, Client and daemon. The connection
// ends when the Client and all its Streams are gone, whatever forked children keep; its memory when the last
// Chunk is.
//
// Errors: canonical codes (nvr/error.h). No function here throws, except std::bad_alloc. A Stream goes on
// after that, or says Aborted with the next call, if it cost bytes or an error.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "nvr/error.h"
#include "nvr/export.h"
#include "nvr/recording.h"

namespace nvr {

namespace internal {
class Connection;
class Session;
class StreamReader;
}  // namespace internal

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

inline constexpr std::uint64_t kToEnd =
    kNoOffset;  // OpenRequest::end: to where the file ends when it is opened
inline constexpr std::size_t kChunkBytes = 65536;  // every chunk of a stream but its last has this size

// What the disk has been doing, by the daemon's account in shared memory: reading it asks nobody and never
// blocks.
struct DiskStatus {
  bool stuck = false;                     // an operation has been on the disk for longer than 100 ms
  std::chrono::nanoseconds stuck_for{};   // as the daemon counts it, ten times a second
  std::chrono::nanoseconds silent_for{};  // of stuck_for: since the disk last answered a read of anybody
  bool answers_others = false;            // it has answered since, less than a second ago
  RecordingId recording;                  // which recording the operation is for
  std::uint64_t offset = 0;               // bytes; 0 for an open
  bool opening = false;                   // an open rather than a read
};

// A recording's file, as it was when the daemon opened it. Which file it is, device, inode and birth time
// tell together: the inode number of a file that is gone is given to another.
struct RecordingInfo {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;     // bytes
  std::int64_t mtime_ns = 0;  // since the epoch
  std::int64_t birth_ns = 0;  // likewise; 0: its file system does not tell, or the daemon is one before 1.3
};

struct OpenRequest {
  RecordingId recording;
  std::uint64_t begin = 0;     // bytes
  std::uint64_t end = kToEnd;  // exclusive; begin >= end is a stream that has already ended
  Priority priority = Priority::kPlayback;
  CachePolicy cache = CachePolicy::kNormal;
  // 0: the range lies in the file as it is when it is opened. More: the recording is still being written, by
  // appending, on the daemon's own machine. Its chunks come as it grows, whole ones only, and `end` may lie
  // beyond it. It is finished once it has not grown for this long (milliseconds::max(): never by itself),
  // once Stream::finish() says so, or at `end`; then comes what is left, and the stream ends as any other.
  // The daemon looks for growth four times a second. Not with CachePolicy::kDirect.
  std::chrono::milliseconds follow{0};
};

// Up to kChunkBytes of a recording, in the slot that the daemon read them into. Movable. Dropping it gives
// the slot back; a held chunk costs its stream one slot of its window and nothing else.
class NVR_PUBLIC Chunk {
 public:
  Chunk(Chunk&& other) noexcept;
  Chunk& operator=(Chunk&& other) noexcept;
  ~Chunk();

  // 1..kChunkBytes bytes, valid and unchanging until this object is destroyed or assigned to.
  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  // Where the bytes lie in the recording's file.
  [[nodiscard]] std::uint64_t offset() const { return offset_; }

 private:
  friend class internal::StreamReader;
  Chunk(std::shared_ptr<internal::Connection> connection, std::uint32_t stream, std::uint32_t slot,
        std::span<const std::byte> bytes, std::uint64_t offset);

  std::shared_ptr<internal::Connection> connection_;
  std::span<const std::byte> bytes_;
  std::uint64_t offset_ = 0;
  std::uint32_t stream_ = 0;
  std::uint32_t slot_ = 0;
};

// The iterator of `for (auto& chunk : stream)`, of Stream and of Playlist (nvr/playlist.h). One pass.
struct ChunkEnd {};
template <class Source>
class ChunkIterator {
 public:
  using value_type = Result<Chunk>;
  using difference_type = std::ptrdiff_t;
  using iterator_concept = std::input_iterator_tag;

  explicit ChunkIterator(Source& source) : source_(&source), current_(source.next()) {}

  Result<Chunk>& operator*() const { return *current_; }
  Result<Chunk>* operator->() const { return &*current_; }
  ChunkIterator& operator++() {
    const bool failed = !current_->has_value();
    current_.reset();  // gives the slot back before waiting for the next one
    if (!failed) current_ = source_->next();
    return *this;
  }
  void operator++(int) { ++*this; }
  friend bool operator==(const ChunkIterator& it, ChunkEnd) { return !it.current_.has_value(); }

 private:
  Source* source_;
  mutable std::optional<Result<Chunk>> current_;
};

// One range of one recording, in order. Reading starts when the stream is opened, not at the first next().
// Movable. Dropping it closes it; the chunks taken from it stay valid.
class NVR_PUBLIC Stream {
 public:
  using NextResult = std::optional<Result<Chunk>>;

  Stream(Stream&& other) noexcept;
  Stream& operator=(Stream&& other) noexcept;
  ~Stream();

  // The next chunk; nothing once the range has been delivered; or an error. After nothing or an error the
  // stream has ended and next() returns nothing from then on - except for these two, after which it goes on:
  //   DeadlineExceeded   nothing arrived in time; the text says how long the disk has been stuck, if it is
  //   ResourceExhausted  every slot of the window is held by chunks that the caller has not dropped
  // (ResourceExhausted before the first chunk, with none held, is a bound of the daemon, and the end.)
  // Blocks until there is something to say, or until `deadline`.
  [[nodiscard]] NextResult next();
  [[nodiscard]] NextResult next(Deadline deadline);
  // Never blocks: DeadlineExceeded when nothing has arrived yet.
  [[nodiscard]] NextResult try_next();

  // The file's size, identity and mtime. Blocks until the daemon has opened the file, or until `deadline`.
  // Takes no chunk and does not end the stream. FailedPrecondition once the stream has ended without having
  // been opened.
  [[nodiscard]] Result<RecordingInfo> info(Deadline deadline = Deadline::max());

  // Ends the stream, from any thread: a next() that is blocked, and the following one, return Cancelled once,
  // then nothing. Returns at once, whatever the disk does.
  void cancel();
  // As cancel(), without the error: next() returns nothing.
  void close();

  // For OpenRequest::follow: the recording is complete. What of it is there when the daemon hears of this is
  // delivered, to the last byte, and then the stream ends. From any thread, at once. Nothing for other
  // streams.
  void finish();

  // for (auto& chunk : stream): every Result<Chunk>, the error included, until the stream has ended. One
  // pass. Skips nothing and retries nothing: the loop ends after a ResourceExhausted too.
  using Iterator = ChunkIterator<Stream>;
  using End = ChunkEnd;
  [[nodiscard]] Iterator begin();
  [[nodiscard]] End end() const { return {}; }

 private:
  friend class Client;
  explicit Stream(std::unique_ptr<internal::StreamReader> reader);

  std::unique_ptr<internal::StreamReader> reader_;
};

inline Stream::Iterator Stream::begin() {
  return Iterator(*this);
}

struct ConnectOptions {
  // How many streams can be open at a time (1..256), and how many 64 KiB chunks each may have waiting or held
  // (a power of two, 2..64). Their product is memory in the daemon, within its --client-memory: 32 MiB as it
  // stands.
  std::uint32_t streams = 16;
  std::uint32_t slots_per_stream = 32;
  // For the handshake. The daemon's control thread never waits for the disk, so a late answer is a dead
  // daemon.
  std::chrono::milliseconds timeout{5000};
  // 0: when the daemon goes, every stream ends with Unavailable. More: the client connects again, with
  // backoff and jitter, as long as it lives, and its streams go on from the very offset where they were, once
  // they have delivered what the daemon before had published. A stream for which no daemon comes within this
  // time ends with Unavailable (milliseconds::max(): never). A recording that is another file by then
  // (device, inode, birth time), or became shorter, ends with FailedPrecondition; one that is gone with
  // NotFound. Where no birth time is known, one that was modified counts as another file; with
  // OpenRequest::follow, one that was last modified earlier than before. Chunks of the daemon before stay
  // valid. While the daemon is away next(deadline) and try_next() say DeadlineExceeded on time, cancel() and
  // close() work at once, and open() gives a stream that waits like the others. The client has a thread of
  // its own ("nvr-resume") while the daemon is away, and only then. A daemon that has less memory to give is
  // asked for smaller windows; the number of streams stays.
  std::chrono::milliseconds resume{0};
};

// A connection to one daemon, and so to one disk. Movable.
class NVR_PUBLIC Client {
 public:
  // Unavailable: nothing listens at `socket_path`, or does not answer in time. PermissionDenied: this user is
  // not on the daemon's list. ResourceExhausted: the daemon is full, or the memory asked for is more than it
  // gives. InvalidArgument: options out of range. FailedPrecondition: the daemon speaks another major
  // version.
  [[nodiscard]] static Result<Client> connect(const std::string& socket_path, ConnectOptions options = {});

  Client(Client&& other) noexcept;
  Client& operator=(Client&& other) noexcept;
  ~Client();

  // Starts reading. Never blocks and never fails for what the disk finds: a missing recording is NotFound at
  // the first next(). ResourceExhausted: all streams of this connection are open. Unavailable: the daemon is
  // gone. InvalidArgument: OpenRequest::follow past the page cache.
  [[nodiscard]] Result<Stream> open(const OpenRequest& request);

  // A recording's size, identity and mtime, now. Takes a stream for the time it needs. Errors as next() gives
  // them.
  [[nodiscard]] Result<RecordingInfo> stat(RecordingId recording, Deadline deadline = Deadline::max());

  // For event loops: a descriptor that is readable when there may be news on any stream, and on hang-up. When
  // it is, call dispatch(), then try_next() on every stream until it says DeadlineExceeded (or, with the
  // whole window held, ResourceExhausted: then there is news after a chunk was dropped). Owned by the Client;
  // valid as long as it; never read from it. Call dispatch() once before the first wait.
  [[nodiscard]] int native_handle() const;
  // Takes the news off the descriptor and asks for the next. Unavailable when the daemon has gone; the
  // streams still deliver what was published before, then Unavailable. With ConnectOptions::resume the
  // descriptor stays the same whichever daemon there is and is readable when one is back, and dispatch() says
  // Unavailable only while the daemon has been away for longer than that.
  [[nodiscard]] Result<void> dispatch();

  [[nodiscard]] DiskStatus disk_status() const;

 private:
  friend class Playlist;
  explicit Client(std::shared_ptr<internal::Session> session);

  std::shared_ptr<internal::Session> session_;
};

}  // namespace nvr
