// The bytes of one response on their way from the disk to the socket: chunks are held where the daemon put
// them until the socket has taken them, and dropped then, which gives the disk credit to go on. Event-loop
// thread.
//
// A response that fits into the stream's window is held until all of it is there, so that it is whole or an
// error with a status: a proxy that joins responses (nginx's slices) takes one that breaks off for a whole
// one.
//
// While others wait for a stream, a body gives up its own as soon as its last chunk is there, or when its
// viewer has taken nothing for a while: what the socket has not taken is copied, so that the chunks go back
// with the stream. For the rest it queues again, once its viewer takes bytes.
#pragma once

#include <boost/asio/buffer.hpp>
#include <memory>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "tools/streamer/fetch.h"

namespace nvr::streamer {

class Body {
 public:
  enum class State {
    kReady,    // there are bytes to write
    kWaiting,  // for the disk
    kDone,     // everything has been written
    kFailed,   // what there was has been written, unless it fits(), and no more will come: error()
  };

  // Of a recording of which bytes are to be sent. `listener` hears when to fill() again, whatever state it
  // was in: the disk's queue would not move otherwise.
  Body(RecordingId recording, Found found, DiskListener& listener);

  // Takes what has arrived: of one that fits into the window all, of others up to half the window, since the
  // other half is read meanwhile.
  [[nodiscard]] State fill();
  // The listener is to hear of the disk's news.
  void listen();
  // What can be written, in order; valid until the next consume().
  void append_to(std::vector<boost::asio::const_buffer>& buffers) const;
  // So many bytes of that have been written.
  void consume(std::size_t length);

  // Is it for others to have its stream?
  [[nodiscard]] bool must_give_up_stream() const;
  // Precondition: no write of the buffers that append_to() gave is under way.
  void give_up_stream();

  // Nothing of it is to be promised before it is there.
  [[nodiscard]] bool fits() const { return fits_; }
  [[nodiscard]] Disk& disk() const { return disk_; }
  [[nodiscard]] const Error& error() const { return *error_; }

 private:
  [[nodiscard]] Stream* stream();
  [[nodiscard]] bool is_other_version(Stream& stream);
  void hold(Chunk chunk);
  [[nodiscard]] bool must_wait() const { return fits_ && to_come_ > 0; }

  struct Piece {
    std::variant<Chunk, std::vector<std::byte>> bytes;  // borrowed, or a copy
    std::span<const std::byte> left;                    // of them
  };

  const RecordingId recording_;
  const RecordingInfo version_;
  const std::uint64_t end_;  // of the bytes to send, in the recording
  Disk& disk_;
  DiskListener& listener_;
  std::unique_ptr<Loan> loan_;     // none: given up
  bool is_checked_ = true;         // its stream reads `version_`
  bool is_resting_ = false;        // gave up its stream, and the viewer has taken nothing since
  Deadline moved_ = Clock::now();  // when the viewer last took bytes, or the stream came
  std::uint64_t to_come_;          // bytes that the stream is still to deliver
  const bool fits_;                // into the window
  const std::size_t most_held_;
  std::vector<Piece> held_;
  std::optional<Error> error_;
};

}  // namespace nvr::streamer
