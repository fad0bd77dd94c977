#include "daemon/signals.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <array>

namespace nvr::daemon {
namespace {

constexpr std::array kEnds = {SIGTERM, SIGINT, SIGQUIT};

// Answered with a line in the log.
constexpr std::array kAnswered = {SIGHUP,  SIGUSR1, SIGUSR2,   SIGALRM, SIGVTALRM,
                                  SIGPROF, SIGXCPU, SIGSTKFLT, SIGPWR,  SIGTSTP};

constexpr std::array kIgnored = {
    SIGPIPE,  // whoever reads our log may go first
    SIGXFSZ,  // the call that met the limit on the size of files fails, and its caller says so
    // A client that opens shared memory at the moment when we ask for a lease on it
    // (OwnedSegment::held_elsewhere) breaks that lease, and the kernel tells us by this signal.
    SIGIO,
    // A terminal that lets no job in the background write to it would stop the daemon at its next line.
    SIGTTOU, SIGTTIN};

}  // namespace

Result<shm::UniqueFd> set_up_signals() {
  for (const int number : kIgnored) signal(number, SIG_IGN);
  sigset_t read;
  sigemptyset(&read);
  for (const int number : kEnds) sigaddset(&read, number);
  for (const int number : kAnswered) sigaddset(&read, number);
  for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) sigaddset(&read, number);
  sigprocmask(SIG_BLOCK, &read, nullptr);
  shm::UniqueFd fd(signalfd(-1, &read, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "cannot create a signalfd");
  return fd;
}

bool is_end(int signal) {
  return std::ranges::find(kEnds, signal) != kEnds.end();
}

std::string name_of_signal(int signal) {
  if (signal >= SIGRTMIN) return "SIGRTMIN+" + std::to_string(signal - SIGRTMIN);
  const char* const name = sigabbrev_np(signal);
  return std::string("SIG") + (name != nullptr ? name : std::to_string(signal).c_str());
}

std::string_view answer_to(int signal) {
  switch (signal) {
    case SIGHUP:
      return "nothing is read again while the daemon runs; restart it for new options, clients with resume "
             "go on where they were";
    case SIGTSTP:
      return "a terminal does not suspend the daemon; SIGSTOP does";
    case SIGXCPU:
      return "the limit on CPU time is reached (RLIMIT_CPU: ulimit -t, LimitCPU=), and the kernel kills the "
             "daemon at the hard one; raise it and restart";
    case SIGPWR:
      return "the power fails; the daemon serves until it is told to end";
    default:
      return "it means nothing to the daemon";
  }
}

}  // namespace nvr::daemon
