// The bytes of one response on their way from the disk to the socket: chunks are held where the daemon put
// them until the socket has taken them, and dropped then, which gives the disk credit to go on. Event-loop
// thread.
#pragma once

#include <boost/asio/buffer.hpp>
#include <optional>
#include <vector>

#include "tools/streamer/fetch.h"

namespace nvr::streamer {

class Body {
 public:
  enum class State {
    kReady,    // there are bytes to write
    kWaiting,  // for the disk
    kDone,     // everything has been written
    kFailed,   // what there was has been written, and no more will come: error()
  };

  // Of a recording of which bytes are to be sent.
  explicit Body(Found found);

  // Takes what has arrived, up to half the stream's window: the other half is read meanwhile.
  [[nodiscard]] State fill();
  // What can be written, in order; valid until the next consume().
  void append_to(std::vector<boost::asio::const_buffer>& buffers) const;
  // So many bytes of that have been written.
  void consume(std::size_t length);

  [[nodiscard]] Disk& disk() const { return disk_; }
  [[nodiscard]] const Error& error() const { return *error_; }

 private:
  void hold(Chunk chunk);

  struct Piece {
    Chunk chunk;
    std::span<const std::byte> left;  // of the chunk's bytes
  };

  Disk& disk_;
  Stream stream_;
  const std::size_t most_held_;
  std::uint64_t to_come_;  // bytes that the stream is still to deliver
  std::vector<Piece> held_;
  std::optional<Error> error_;
};

}  // namespace nvr::streamer
