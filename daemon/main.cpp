// nvr-readerd: reads one directory of recordings on behalf of other processes.
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "daemon/activation.h"
#include "daemon/control_thread.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/signals.h"

namespace {

// Per connection: socket, pidfd, doorbell, two segments, and two more of one whose client kept its maps; per
// stream one file. The metrics server's connections are fewer than 32. The limit is what the bounds can ask
// for, as far as the hard limit allows, and no more.
void set_descriptor_limit(std::uint32_t max_clients, bool has_metrics) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = 64 + (has_metrics ? 32 : 0) + rlim_t{max_clients} * (7 + nvr::shm::kMaxStreams);
  limit.rlim_cur = limit.rlim_max = std::min(limit.rlim_max, wanted);
  setrlimit(RLIMIT_NOFILE, &limit);
}

[[noreturn]] void fail_to_start(const nvr::Error& error) {
  nvr::daemon::say_why_it_ends(error.message);
  _exit(2);  // nothing was served yet, so there is nothing to wind down
}

}  // namespace

int main(int argc, char** argv) {
  nvr::daemon::Options options = nvr::daemon::parse_options(argc, argv);
  nvr::shm::UniqueFd signals = nvr::daemon::set_up_signals();
  set_descriptor_limit(options.max_clients, !options.metrics.empty());
  // A client of the same user could otherwise write to our memory through /proc/<pid>/mem.
  prctl(PR_SET_DUMPABLE, 0);
  if (options.sandbox) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (auto set_up = nvr::daemon::set_up_log(options.log_level, options.sandbox); !set_up)
    fail_to_start(set_up.error());

  if (auto taken = nvr::daemon::take_passed_listener(options); !taken) fail_to_start(taken.error());
  auto control = nvr::daemon::ControlThread::create(std::move(options), std::move(signals));
  fail_to_start(control ? (*control)->run() : control.error());
}
