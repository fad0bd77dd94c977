#include "tools/demo/viewer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "nvr/client.h"
#include "shm/unique_fd.h"
#include "tools/common/made_recording.h"

namespace nvr::demo {
namespace {

// Where the bytes come from. next() waits for the next piece and checks it.
struct Piece {
  enum class Kind { kBytes, kNotYet, kEnd, kFailed };
  Kind kind = Kind::kFailed;
  std::uint64_t length = 0;
  std::string text;
};
class Source {
 public:
  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  virtual ~Source() = default;
  virtual Piece next() = 0;
};

class ThroughDaemon final : public Source {
 public:
  ThroughDaemon(Client client, Stream stream, std::uint32_t recording)
      : client_(std::move(client)), stream_(std::move(stream)), recording_(recording) {}

  static Result<std::unique_ptr<Source>> open(const ViewerSetup& setup) {
    auto client = Client::connect(setup.socket, {.streams = 1, .slots_per_stream = 16});
    if (!client) return tl::unexpected(client.error());
    auto stream = client->open({.recording = {1, setup.recording}});
    if (!stream) return tl::unexpected(stream.error());
    return std::make_unique<ThroughDaemon>(std::move(*client), std::move(*stream), setup.recording);
  }

  Piece next() override {
    const auto chunk = stream_.next(Clock::now() + kDeadline);
    if (!chunk) return {.kind = Piece::Kind::kEnd, .text = {}};
    if (!*chunk && chunk->error().code == Code::kDeadlineExceeded)
      return {.kind = Piece::Kind::kNotYet, .text = chunk->error().message};
    if (!*chunk) return {.kind = Piece::Kind::kFailed, .text = chunk->error().message};
    if (!tools::are_right_bytes((*chunk)->bytes(), recording_, (*chunk)->offset()))
      return {.kind = Piece::Kind::kFailed, .text = "wrong bytes"};
    return {.kind = Piece::Kind::kBytes, .length = (*chunk)->bytes().size(), .text = {}};
  }

 private:
  Client client_;
  Stream stream_;
  std::uint32_t recording_;
};

class ByItself final : public Source {
 public:
  explicit ByItself(const ViewerSetup& setup)
      : fd_(::open(setup.path.c_str(), O_RDONLY | O_CLOEXEC)), recording_(setup.recording), buffer_(65536) {}

  Piece next() override {
    const ssize_t got = pread(fd_.get(), buffer_.data(), buffer_.size(), static_cast<off_t>(offset_));
    if (got == 0) return {.kind = Piece::Kind::kEnd, .text = {}};
    if (got < 0) return {.kind = Piece::Kind::kFailed, .text = std::strerror(errno)};
    const auto length = static_cast<std::uint64_t>(got);
    if (!tools::are_right_bytes(std::span(buffer_).first(length), recording_, offset_))
      return {.kind = Piece::Kind::kFailed, .text = "wrong bytes"};
    offset_ += length;
    return {.kind = Piece::Kind::kBytes, .length = length, .text = {}};
  }

 private:
  shm::UniqueFd fd_;
  std::uint32_t recording_;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> buffer_;
};

class Viewer {
 public:
  Viewer(const ViewerSetup& setup, int pipe) : setup_(setup), pipe_(pipe) {}

  void play() {
    std::unique_ptr<Source> source = open();
    while (source && bytes_ < setup_.bytes) {
      const auto due = setup_.start + std::chrono::nanoseconds(bytes_ * 1'000'000'000 / setup_.bytes_per_s);
      std::this_thread::sleep_until(due);
      const auto before = SteadyClock::now();
      const Piece piece = source->next();
      take(piece, SteadyClock::now() - before);
      if (piece.kind == Piece::Kind::kEnd || piece.kind == Piece::Kind::kFailed) break;
    }
    report_tick();
    report_end();
  }

 private:
  std::unique_ptr<Source> open() {
    if (setup_.socket.empty()) return std::make_unique<ByItself>(setup_);
    auto source = ThroughDaemon::open(setup_);
    if (source) return std::move(*source);
    problem_ = source.error().message;
    return nullptr;
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
    if (problem_.empty() && bytes_ != setup_.bytes) problem_ = "ended too early";
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

pid_t start_viewer(const ViewerSetup& setup, int pipe) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Viewer(setup, pipe).play();
  _exit(0);
}

}  // namespace nvr::demo
