#include "daemon/log.h"

#include <poll.h>
#include <pthread.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/details/os.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>

#include "daemon/log_queue.h"
#include "shm/clock.h"

namespace nvr::daemon {
namespace {

constexpr std::size_t kQueueBytes = 256 << 10;
constexpr std::chrono::milliseconds kFinishTime{300};  // of the second within which a signal ends the daemon

// A text for each of trace, debug, info, warn, err, critical.
using LevelTexts = std::array<std::string_view, 6>;
// The priority by which the journal files a line: sd-daemon(3).
constexpr LevelTexts kJournalPriorities = {"<7>", "<7>", "<6>", "<4>", "<3>", "<2>"};
constexpr LevelTexts kTerminalColours = {"\033[37m",        "\033[36m",        "\033[32m",
                                         "\033[33m\033[1m", "\033[31m\033[1m", "\033[1m\033[41m"};

class LevelText : public spdlog::custom_flag_formatter {
 public:
  explicit LevelText(const LevelTexts& texts) : texts_(texts) {}
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const auto level = static_cast<std::size_t>(message.level);
    const std::string_view text = texts_[std::min(level, texts_.size() - 1)];
    out.append(text.data(), text.data() + text.size());
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<LevelText>(texts_);
  }

 private:
  LevelTexts texts_;
};

// Where spdlog's lines go. Control thread only.
class QueueSink : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  explicit QueueSink(LogQueue& queue) : queue_(queue) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    queue_.put(fmt::to_string(line));
  }
  void flush_() override {}

  LogQueue& queue_;
};

// Never destroyed: at the end its thread may be in a write that does not end.
LogQueue* queue = nullptr;
Confinement confinement;

// Is stderr the stream that systemd connected to the journal? It says "device:inode" of that one; the
// variable alone would be inherited by a daemon whose stderr somebody has sent elsewhere.
bool logs_to_journal() {
  const char* const stream = std::getenv("JOURNAL_STREAM");
  struct stat st = {};
  if (stream == nullptr || fstat(STDERR_FILENO, &st) != 0) return false;
  return stream == std::to_string(st.st_dev) + ":" + std::to_string(st.st_ino);
}

std::string_view what_of(LogKind kind) {
  switch (kind) {
    case LogKind::kAccept:
      return "connections that could not be accepted";
    case LogKind::kRefusal:
      return "refused clients";
    case LogKind::kOffence:
      return "clients that broke the protocol";
    case LogKind::kConnect:
      return "clients that connected";
    case LogKind::kDisconnect:
      return "clients that went";
    case LogKind::kDisconnected:
      return "clients that were to be disconnected";
    case LogKind::kSlow:
      return "slow operations of the disk (nvr-readerctl stall-log has them)";
    case LogKind::kDiskError:
      return "errors of the disk (nvr-readerctl stall-log has them)";
    case LogKind::kEngine:
      return "the engine";
    case LogKind::kSignal:
      return "signals";
    case LogKind::kCount:
      break;
  }
  return "?";
}

LogLimiter& limiter() {
  static LogLimiter only;
  return only;
}

std::unique_ptr<spdlog::formatter> make_formatter() {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (logs_to_journal())
    formatter->add_flag<LevelText>('*', kJournalPriorities).set_pattern("%*%v");
  else if (spdlog::details::os::in_terminal(stderr) && spdlog::details::os::is_color_terminal())
    formatter->add_flag<LevelText>('*', kTerminalColours)
        .set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %n[%P] %*%l\033[m: %v");
  else
    formatter->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %n[%P] %l: %v");
  return formatter;
}

}  // namespace

Result<void> set_up_log(const std::string& level, bool confine) {
  tzset();  // reads files
  const std::string name = "nvr-readerd";
  auto notice = [name, formatter = std::shared_ptr(make_formatter())](std::uint64_t lost) {
    const std::string text =
        fmt::format("{} lines of the log were lost here: they could not be written fast enough", lost);
    spdlog::memory_buf_t line;
    formatter->format(spdlog::details::log_msg(name, spdlog::level::warn, text), line);
    return fmt::to_string(line);
  };
  auto started = LogQueue::start(
      {.fd = STDERR_FILENO, .max_bytes = kQueueBytes, .notice = std::move(notice), .on_start = [confine] {
         pthread_setname_np(pthread_self(), "log");
         if (confine) confinement = confine_helper_thread();
       }});
  if (!started) return tl::unexpected(started.error());
  queue = started->release();
  auto logger = std::make_shared<spdlog::logger>(name, std::make_shared<QueueSink>(*queue));
  logger->set_formatter(make_formatter());
  logger->set_error_handler([](const std::string&) {});  // spdlog's own writes to stderr
  spdlog::set_default_logger(std::move(logger));
  spdlog::set_level(spdlog::level::from_str(level));
  return {};
}

Confinement log_confinement() {
  return confinement;
}

void say_why_it_ends(const std::string& why) {
  std::string line = (logs_to_journal() ? "<3>nvr-readerd: " : "nvr-readerd: ") + why + '\n';
  if (queue == nullptr) {  // there is no log yet, or there cannot be one
    pollfd entry = {.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
    if (poll(&entry, 1, static_cast<int>(kFinishTime.count())) > 0)
      static_cast<void>(!write(STDERR_FILENO, line.data(), line.size()));
    return;
  }
  queue->put(std::move(line));
  finish_log();
}

void finish_log() {
  static_cast<void>(queue->drain(kFinishTime));
}

std::uint64_t lost_lines() {
  return queue != nullptr ? queue->lost() : 0;
}

bool admits_line(LogKind kind) {
  return limiter().admits(kind, shm::now_ns());
}

void log_left_out() {
  if (limiter().next_due_ns() == UINT64_MAX) return;
  while (const auto left_out = limiter().take_due(shm::now_ns()))
    spdlog::warn("{} more lines about {} were left out", left_out->lines, what_of(left_out->kind));
}

std::uint64_t next_left_out_ns() {
  return limiter().next_due_ns();
}

}  // namespace nvr::daemon
