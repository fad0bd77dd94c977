#include "daemon/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>

#include "shm/clock.h"

namespace nvr::daemon {
namespace {

// The priority by which the journal files a line: sd-daemon(3).
class JournalPriority : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    // trace and debug, debug, info, warn, err, critical.
    static constexpr std::array<std::string_view, 6> kPrefixes = {"<7>", "<7>", "<6>", "<4>", "<3>", "<2>"};
    const auto level = static_cast<std::size_t>(message.level);
    const std::string_view prefix = kPrefixes[std::min(level, kPrefixes.size() - 1)];
    out.append(prefix.data(), prefix.data() + prefix.size());
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<JournalPriority>();
  }
};

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
    case LogKind::kCount:
      break;
  }
  return "?";
}

LogLimiter& limiter() {
  static LogLimiter only;
  return only;
}

}  // namespace

void set_up_log(const std::string& level) {
  tzset();  // reads files
  if (logs_to_journal()) {
    auto logger = spdlog::stderr_logger_mt("nvr-readerd");
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<JournalPriority>('*').set_pattern("%*%v");
    logger->set_formatter(std::move(formatter));
    spdlog::set_default_logger(std::move(logger));
  } else {
    spdlog::set_default_logger(spdlog::stderr_color_mt("nvr-readerd"));  // coloured on a terminal only
    spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %n[%P] %^%l%$: %v");
  }
  spdlog::set_level(spdlog::level::from_str(level));
}

void say_why_it_ends(const std::string& why) {
  std::fprintf(stderr, "%snvr-readerd: %s\n", logs_to_journal() ? "<3>" : "", why.c_str());
  std::fflush(stderr);
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
