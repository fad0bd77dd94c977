// What tests do with streams: read them to the end, and check every byte on the way. Any thread, any process.
#pragma once

#include <optional>
#include <string>

#include "nvr/client.h"
#include "tests/support/daemon_process.h"

namespace nvr::test {

// Connects, or throws what the daemon said.
[[nodiscard]] Client connect_to(const std::string& socket, ConnectOptions options = {});
[[nodiscard]] Client connect_to(const DaemonProcess& daemon, ConnectOptions options = {});

// Opens, or throws. With all streams taken by closed ones that the daemon has not let go of yet, tries again.
[[nodiscard]] Stream open_stream(Client& client, const OpenRequest& request);
[[nodiscard]] Stream open_stream(Client& client, const RecordingFile& file, std::uint64_t begin = 0,
                                 std::uint64_t end = kToEnd);

// Checks the chunks of a stream, in order: each lies where it must, is as long as it must be, and has the
// right bytes.
class ChunkChecker {
 public:
  ChunkChecker(RecordingFile file, std::uint64_t begin, std::uint64_t end)
      : file_(std::move(file)), next_(begin), end_(end) {}

  // False at the first chunk that is wrong; problem() then says why.
  bool accept(const Chunk& chunk);
  [[nodiscard]] bool is_complete() const { return problem_.empty() && next_ == end_; }
  [[nodiscard]] std::uint64_t next_offset() const { return next_; }
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  RecordingFile file_;
  std::uint64_t next_;
  std::uint64_t end_;
  std::string problem_;
};

// How a stream went: what it delivered, and the error that it ended with, if any.
struct Outcome {
  std::uint64_t bytes = 0;
  std::uint64_t chunks = 0;
  std::optional<Error> error;
  std::string problem;  // a wrong chunk, or a stream that goes on after its end
};
// Reads on to the end. `checker` knows the range; none: the bytes are not looked at.
[[nodiscard]] Outcome drain(Stream& stream, ChunkChecker* checker = nullptr);

// Reads a whole stream that must deliver exactly [begin, end) of `file` and then end. What went wrong; empty
// if nothing.
[[nodiscard]] std::string problem_reading(Stream& stream, const RecordingFile& file, std::uint64_t begin,
                                          std::uint64_t end);
// Opens and reads.
[[nodiscard]] std::string problem_reading(Client& client, const RecordingFile& file, std::uint64_t begin,
                                          std::uint64_t end);
[[nodiscard]] std::string problem_reading(Client& client, const RecordingFile& file);

// The error that next() gives now; Ok's code when it gives a chunk or nothing.
[[nodiscard]] Code code_of(const Stream::NextResult& next);
[[nodiscard]] std::string to_string(const Error& error);

// A deadline this far ahead.
[[nodiscard]] inline Deadline in(std::chrono::milliseconds time) {
  return Clock::now() + time;
}

}  // namespace nvr::test
