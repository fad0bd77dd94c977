// Many slices of many recordings read as one: what a recorder's mp4 is made of.
//
//   auto list = nvr::Playlist::open(*client, {{.recording = {3, 11}, .begin = 4000, .end = 9000000},
//                                             {.recording = {3, 12}, .begin = 0, .end = 500000}});
//   if (!list) return report(list.error());
//   for (auto& chunk : *list) {                        // ends after the last slice, or after one error
//     if (!chunk) return report(chunk.error());        // says which slice
//     send(chunk->bytes());                            // never of two slices
//   }
//
// The next slice is opened while the one before is still being delivered, so there is no gap at the joint.
// That takes two streams of the connection, and the window of each; a player that seeks wants more of them
// (ConnectOptions::streams), because the stream of a read that the disk has not answered is free only when it
// has.
//
// Threads: a Playlist is used from one thread at a time, cancel() and close() from any. Nothing of it in a
// child after fork().
//
// Lifetime: a Playlist may outlive its Client; Chunks may outlive both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "nvr/client.h"

namespace nvr {

namespace internal {
class PlaylistReader;
}  // namespace internal

// [begin, end) of a recording, in bytes. Empty slices are skipped without being opened.
struct Slice {
  RecordingId recording;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct PlaylistOptions {
  Priority priority = Priority::kPlayback;
  CachePolicy cache = CachePolicy::kNormal;
  // The next slice is opened once this many bytes or fewer are left to deliver of the one before it. A seek
  // far from a joint so costs the disk one read, not two. Less than a window (slots_per_stream * 64 KiB)
  // gives a busy disk little time.
  std::uint64_t open_ahead_bytes = 4 << 20;
};

class NVR_PUBLIC Playlist {
 public:
  using NextResult = Stream::NextResult;

  // Starts reading the first slice. Never blocks, and never fails for what the disk finds: that comes with
  // next(). InvalidArgument: a slice ends before it begins, or past the largest file offset, or all of them
  // together are longer than that.
  [[nodiscard]] static Result<Playlist> open(Client& client, std::vector<Slice> slices,
                                             PlaylistOptions options = {});

  Playlist(Playlist&& other) noexcept;
  Playlist& operator=(Playlist&& other) noexcept;
  ~Playlist();

  // As Stream::next(): the next chunk, nothing at the end, or an error. Errors begin with the slice that they
  // are about, "slice 2 of 7: ...". After these two it goes on, as a Stream does, by the next call:
  //   DeadlineExceeded   nothing arrived in time
  //   ResourceExhausted  the window is held by chunks that the caller has not dropped, or all streams of the
  //                      connection are open
  // After any other error the playlist has ended and next() returns nothing, until a seek(): what is behind a
  // slice that cannot be read can be gone on with.
  [[nodiscard]] NextResult next();
  [[nodiscard]] NextResult next(Deadline deadline);
  // Never blocks. For event loops: Client::native_handle() and dispatch(), then this until DeadlineExceeded.
  [[nodiscard]] NextResult try_next();

  // Bytes of all slices together.
  [[nodiscard]] std::uint64_t size() const;
  // Where in them the next chunk begins.
  [[nodiscard]] std::uint64_t position() const;
  // The slice, from 0, in which that lies; after an error the one that failed. The number of slices at the
  // end.
  [[nodiscard]] std::size_t slice() const;

  // Goes on at `offset` of all slices together. What was being read is cancelled now and what was read is
  // dropped; reading at the new place begins before this returns. Never blocks. Chunks that the caller holds
  // stay valid. OutOfRange: `offset` is past size(). FailedPrecondition: cancelled or closed.
  [[nodiscard]] Result<void> seek(std::uint64_t offset);

  // Ends the playlist, from any thread and for good: next() says Cancelled once (cancel), or nothing (close).
  // Returns at once, whatever the disk does.
  void cancel();
  void close();

  // for (auto& chunk : playlist), as of a Stream.
  using Iterator = ChunkIterator<Playlist>;
  using End = ChunkEnd;
  [[nodiscard]] Iterator begin() { return Iterator(*this); }
  [[nodiscard]] End end() const { return {}; }

 private:
  explicit Playlist(std::unique_ptr<internal::PlaylistReader> reader);

  std::unique_ptr<internal::PlaylistReader> reader_;
};

}  // namespace nvr
