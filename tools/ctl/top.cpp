#include "tools/ctl/top.h"

#include <errno.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <ctime>
#include <memory>
#include <optional>

#include "shm/clock.h"
#include "shm/unique_fd.h"
#include "tools/ctl/control_session.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/terminal.h"
#include "tools/ctl/top_screen.h"

namespace nvr::tools {
namespace {

using nlohmann::json;

// Asks the daemon, connecting anew when that has failed.
class Watcher {
 public:
  explicit Watcher(const TopOptions& options) : options_(options) {}

  // What there is now; where there is nothing new, what was, with the trouble.
  [[nodiscard]] Result<TopSample> look() {
    auto fresh = ask();
    if (fresh) return last_ = std::move(*fresh);
    session_.reset();
    if (last_.status.is_null()) return tl::unexpected(fresh.error());
    last_.time_s = std::time(nullptr);
    last_.trouble = "these figures are old: " + fresh.error().message;
    return last_;
  }

 private:
  [[nodiscard]] Result<TopSample> ask() {
    if (!session_) {
      auto session = ControlSession::connect(options_.socket_path, options_.timeout);
      if (!session) return tl::unexpected(session.error());
      session_ = std::move(*session);
    }
    const auto status = session_->status();
    if (!status) return tl::unexpected(status.error());
    const auto streams = session_->streams();
    if (!streams) return tl::unexpected(streams.error());
    TopSample sample = {.time_s = std::time(nullptr),
                        .status = json::parse(*status, nullptr, false),
                        .streams = json::parse(*streams, nullptr, false),
                        .trouble = {}};
    if (!sample.status.is_object() || !sample.streams.is_object())
      return fail(Code::kInternal, "the daemon's answer is not a JSON object");
    const double now_s = static_cast<double>(shm::now_ns()) / 1e9;
    rates_.rate(sample.streams["streams"], now_s);
    name_processes(sample.streams["streams"], options_.process_of);
    sample.bytes_per_s = meter_.look(number(child(sample.status, "totals"), "bytes"), now_s).value_or(0);
    return sample;
  }

  const TopOptions& options_;
  std::optional<ControlSession> session_;
  RateMeter rates_;
  TopSample last_;
  Speedometer meter_;
};

sigset_t watched_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH}) sigaddset(&signals, number);
  return signals;
}

// Sleeps until `until_ns`, a signal, or a key on standard input, if `keys`.
void wait(int signals, bool keys, std::uint64_t until_ns) {
  const std::uint64_t now_ns = shm::now_ns();
  if (now_ns >= until_ns) return;
  std::array<pollfd, 2> entries = {{{.fd = signals, .events = POLLIN, .revents = 0},
                                    {.fd = keys ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0}}};
  poll(entries.data(), entries.size(), static_cast<int>((until_ns - now_ns) / shm::kMillisecond + 1));
}

std::uint32_t next_signal(int signals) {
  signalfd_siginfo info = {};
  return read(signals, &info, sizeof(info)) == sizeof(info) ? info.ssi_signo : 0;
}

class Top {
 public:
  Top(const TopOptions& options, shm::UniqueFd signals)
      : options_(options), signals_(std::move(signals)), watcher_(options) {}

  Result<int> run() {
    auto sample = watcher_.look();
    if (!sample) return tl::unexpected(sample.error());
    if (!options_.as_json) terminal_ = Terminal::take();
    const auto interval_ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(options_.interval).count());
    for (std::uint64_t looks = 1;; ++looks) {
      if (!show(*sample)) return fail(Code::kAborted, "cannot write to standard output");
      if (looks == options_.count) return 0;
      if (const auto code = idle(*sample, shm::now_ns() + interval_ns)) return *code;
      sample = watcher_.look();
      if (!sample) return tl::unexpected(sample.error());
    }
  }

 private:
  bool show(const TopSample& sample) {
    if (terminal_) {
      const Terminal::Size size = terminal_->size();
      terminal_->show(top_screen(sample, TopBounds{size.columns, size.rows}));
      return true;
    }
    if (options_.as_json) {
      const json line = {{"time_s", sample.time_s},
                         {"trouble", sample.trouble},
                         {"bytes_per_s", sample.bytes_per_s},
                         {"status", sample.status},
                         {"streams", child(sample.streams, "streams")},
                         {"left_out", child(sample.streams, "left_out")}};
      fmt::print("{}\n", line.dump(-1, ' ', false, json::error_handler_t::replace));
    } else {
      fmt::print("{}\n\n", top_screen(sample, std::nullopt));
    }
    return std::fflush(stdout) == 0;
  }

  // Until the next look. The exit code, if somebody ends this meanwhile.
  std::optional<int> idle(const TopSample& sample, std::uint64_t until_ns) {
    while (shm::now_ns() < until_ns) {
      wait(signals_.get(), terminal_ != nullptr, until_ns);
      while (const std::uint32_t signal = next_signal(signals_.get()))
        if (const auto code = on_signal(signal, sample)) return code;
      if (!terminal_) continue;
      bool is_there = true;
      const char key = terminal_->key(is_there);
      if (key == 'q' || key == 'Q' || !is_there) return 0;
    }
    return std::nullopt;
  }

  std::optional<int> on_signal(std::uint32_t signal, const TopSample& sample) {
    if (signal == SIGWINCH) {
      if (terminal_) show(sample);
      return std::nullopt;
    }
    if (signal == SIGTSTP) {  // ^Z: the shell gets its terminal, until it lets us go on
      if (terminal_) terminal_->leave();
      raise(SIGSTOP);
      if (terminal_) {
        terminal_->enter();
        show(sample);
      }
      return std::nullopt;
    }
    return signal == SIGINT ? 0 : 128 + static_cast<int>(signal);
  }

  const TopOptions& options_;
  shm::UniqueFd signals_;
  Watcher watcher_;
  std::unique_ptr<Terminal> terminal_;
};

}  // namespace

Result<int> top(const TopOptions& options) {
  const sigset_t signals = watched_signals();
  sigprocmask(SIG_BLOCK, &signals, nullptr);  // they are read, so that the terminal is given back first
  shm::UniqueFd fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "cannot wait for signals");
  return Top(options, std::move(fd)).run();
}

}  // namespace nvr::tools
