#include "tests/support/streams.h"

#include <algorithm>

namespace nvr::test {

Client connect_to(const std::string& socket, ConnectOptions options) {
  options.timeout = std::max<std::chrono::milliseconds>(options.timeout, kLongEnough);
  auto client = Client::connect(socket, options);
  if (!client) throw TestFailure("cannot connect: " + to_string(client.error()));
  return std::move(*client);
}

Client connect_to(const DaemonProcess& daemon, ConnectOptions options) {
  return connect_to(daemon.socket(), options);
}

Stream open_stream(Client& client, const OpenRequest& request) {
  std::optional<Result<Stream>> stream;
  const bool settled = wait_until([&] {
    stream.emplace(client.open(request));
    return stream->has_value() || stream->error().code != Code::kResourceExhausted;
  });
  if (!settled || !*stream) throw TestFailure("cannot open: " + to_string(stream->error()));
  return std::move(**stream);
}

Stream open_stream(Client& client, const RecordingFile& file, std::uint64_t begin, std::uint64_t end) {
  return open_stream(client, {.recording = file.id, .begin = begin, .end = end});
}

bool ChunkChecker::accept(const Chunk& chunk) {
  const std::uint64_t expected = std::min<std::uint64_t>(kChunkBytes, end_ - next_);
  if (!problem_.empty()) return false;
  if (expected == 0) {
    problem_ = "a chunk after the last one";
  } else if (chunk.offset() != next_ || chunk.bytes().size() != expected) {
    problem_ = "a chunk [" + std::to_string(chunk.offset()) + ", +" + std::to_string(chunk.bytes().size()) +
               ") in place of [" + std::to_string(next_) + ", +" + std::to_string(expected) + ")";
  } else {
    problem_ = file_.difference(next_, chunk.bytes());
  }
  next_ += expected;
  return problem_.empty();
}

Outcome drain(Stream& stream, ChunkChecker* checker) {
  Outcome outcome;
  while (auto chunk = stream.next()) {
    if (!*chunk) {
      outcome.error = chunk->error();
      break;
    }
    outcome.bytes += (*chunk)->bytes().size();
    ++outcome.chunks;
    if (checker != nullptr && !checker->accept(**chunk)) {
      outcome.problem = checker->problem();
      return outcome;
    }
  }
  if (stream.next() || stream.try_next()) outcome.problem = "the stream goes on after its end";
  return outcome;
}

std::string problem_reading(Stream& stream, const RecordingFile& file, std::uint64_t begin,
                            std::uint64_t end) {
  ChunkChecker checker(file, begin, end);
  const Outcome outcome = drain(stream, &checker);
  if (!outcome.problem.empty()) return outcome.problem;
  if (outcome.error) return to_string(*outcome.error);
  if (!checker.is_complete()) return "ended at " + std::to_string(checker.next_offset()) + ", too early";
  return "";
}

std::string problem_reading(Client& client, const RecordingFile& file, std::uint64_t begin,
                            std::uint64_t end) {
  Stream stream = open_stream(client, file, begin, end);
  return problem_reading(stream, file, begin, end);
}

std::string problem_reading(Client& client, const RecordingFile& file) {
  return problem_reading(client, file, 0, file.size);
}

Code code_of(const Stream::NextResult& next) {
  return !next || *next ? Code::kOk : next->error().code;
}

std::string to_string(const Error& error) {
  std::string text(nvr::to_string(error.code));
  text += ": " + error.message;
  if (error.sys_errno != 0) text += " (errno " + std::to_string(error.sys_errno) + ")";
  if (error.offset != kNoOffset) text += " at offset " + std::to_string(error.offset);
  return text;
}

}  // namespace nvr::test
