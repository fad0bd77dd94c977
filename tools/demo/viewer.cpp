#include "tools/demo/viewer.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "nvr/client.h"
#include "shm/unique_fd.h"

namespace nvr::demo {
namespace {

struct Piece {
  enum class Kind { kBytes, kNotYet, kEnd, kFailed };
  Kind kind = Kind::kFailed;
  std::uint64_t length = 0;
  std::string text;
};
// Waits for the next piece, and compares it.
using Source = std::function<Piece()>;

Piece checked(const lab::RecordingFile& file, std::uint64_t offset, std::span<const std::byte> bytes) {
  const std::string problem = file.difference(offset, bytes);
  if (!problem.empty()) return {.kind = Piece::Kind::kFailed, .text = problem};
  return {.kind = Piece::Kind::kBytes, .length = bytes.size(), .text = {}};
}

Result<Source> through_daemon(const ViewerSetup& setup) {
  auto client = Client::connect(setup.socket, {.streams = 1, .slots_per_stream = 16});
  if (!client) return tl::unexpected(client.error());
  auto stream = client->open({.recording = setup.file.id});
  if (!stream) return tl::unexpected(stream.error());
  const auto kept = std::make_shared<std::pair<Client, Stream>>(std::move(*client), std::move(*stream));
  return [kept, &setup]() -> Piece {
    const auto chunk = kept->second.next(Clock::now() + kDeadline);
    if (!chunk) return {.kind = Piece::Kind::kEnd, .text = {}};
    if (*chunk) return checked(setup.file, (*chunk)->offset(), (*chunk)->bytes());
    const bool is_late = chunk->error().code == Code::kDeadlineExceeded;
    return {.kind = is_late ? Piece::Kind::kNotYet : Piece::Kind::kFailed, .text = chunk->error().message};
  };
}

Source by_itself(const ViewerSetup& setup) {
  const auto fd = std::make_shared<shm::UniqueFd>(::open(setup.file.path.c_str(), O_RDONLY | O_CLOEXEC));
  return [fd, &setup, buffer = std::vector<std::byte>(65536), offset = std::uint64_t{0}]() mutable -> Piece {
    const ssize_t got = pread(fd->get(), buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (got == 0) return {.kind = Piece::Kind::kEnd, .text = {}};
    if (got < 0) return {.kind = Piece::Kind::kFailed, .text = std::strerror(errno)};
    const auto length = static_cast<std::uint64_t>(got);
    offset += length;
    return checked(setup.file, offset - length, std::span(buffer).first(length));
  };
}

class Viewer {
 public:
  Viewer(const ViewerSetup& setup, int pipe) : setup_(setup), pipe_(pipe) {}

  void play() {
    const Source source = open();
    while (source && bytes_ < setup_.file.size) {
      const auto due = setup_.start + std::chrono::nanoseconds(bytes_ * 1'000'000'000 / setup_.bytes_per_s);
      std::this_thread::sleep_until(due);
      const auto before = SteadyClock::now();
      const Piece piece = source();
      take(piece, SteadyClock::now() - before);
      if (piece.kind == Piece::Kind::kEnd || piece.kind == Piece::Kind::kFailed) break;
    }
    report_tick();
    report_end();
  }

 private:
  Source open() {
    if (setup_.socket.empty()) return by_itself(setup_);
    auto source = through_daemon(setup_);
    if (!source) problem_ = source.error().message;
    return source ? std::move(*source) : nullptr;
  }

  void take(const Piece& piece, std::chrono::nanoseconds waited) {
    const auto now_tick = static_cast<std::uint32_t>((SteadyClock::now() - setup_.start) / kTick);
    if (now_tick != tick_.tick) {
      report_tick();
      tick_ = {.viewer = setup_.number, .tick = now_tick};
    }
    const auto us = static_cast<std::uint64_t>(waited.count() / 1000);
    tick_.longest_wait_us = std::max(tick_.longest_wait_us, us);
    longest_wait_us_ = std::max(longest_wait_us_, us);
    if (piece.kind == Piece::Kind::kNotYet) {
      ++tick_.informed;
      ++informed_;
      if (piece.text.size() >= told_.size()) told_ = piece.text;  // the last of those that say the most
    }
    if (piece.kind == Piece::Kind::kFailed) problem_ = piece.text;
    tick_.bytes += piece.length;
    bytes_ += piece.length;
  }

  void report_tick() { send(tick_); }
  void report_end() {
    if (problem_.empty() && bytes_ != setup_.file.size) problem_ = "ended too early";
    Report report = {.kind = Report::Kind::kFinal,
                     .viewer = setup_.number,
                     .informed = informed_,
                     .bytes = bytes_,
                     .longest_wait_us = longest_wait_us_};
    report.failed = problem_.empty() ? 0 : 1;
    const std::string& text = problem_.empty() ? told_ : problem_;
    text.copy(report.text, sizeof(report.text) - 1);
    send(report);
  }
  void send(const Report& report) const { static_cast<void>(!write(pipe_, &report, sizeof(report))); }

  const ViewerSetup& setup_;
  int pipe_;
  Report tick_ = {.viewer = setup_.number};
  std::uint64_t bytes_ = 0;
  std::uint64_t longest_wait_us_ = 0;
  std::uint32_t informed_ = 0;
  std::string told_;
  std::string problem_;
};

}  // namespace

lab::Process start_viewer(const ViewerSetup& setup, int pipe) {
  return lab::fork_child([&] { Viewer(setup, pipe).play(); });
}

}  // namespace nvr::demo
