// nvr-readerd: reads one directory of recordings on behalf of other processes.
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/activation.h"
#include "daemon/control_thread.h"
#include "daemon/limits.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/page_table.h"
#include "daemon/signals.h"

namespace {

[[noreturn]] void fail_to_start(const nvr::Error& error) {
  nvr::daemon::say_why_it_ends(nvr::daemon::with_remedy(error).message);
  _exit(2);  // nothing was served yet, so there is nothing to wind down
}

}  // namespace

int main(int argc, char** argv) {
  using namespace nvr::daemon;
  if (auto set_up = set_up_stacks(); !set_up) fail_to_start(set_up.error());
  Options options = parse_options(argc, argv);
  auto signals = set_up_signals();
  if (!signals) fail_to_start(signals.error());
  set_descriptor_limit(options.max_clients, !options.metrics.empty());
  if (auto left = check_memory_left(); !left) fail_to_start(left.error());
  if (auto there = check_proc(); !there) fail_to_start(there.error());
  PageTable::of_this_process();
  // A client of the same user could otherwise write to our memory through /proc/<pid>/mem.
  prctl(PR_SET_DUMPABLE, 0);
  if (options.sandbox) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (auto set_up = set_up_log(options.log_level, options.sandbox); !set_up) fail_to_start(set_up.error());

  if (auto taken = take_passed_listener(options); !taken) fail_to_start(taken.error());
  auto control = ControlThread::create(std::move(options), std::move(*signals));
  fail_to_start(control ? (*control)->run() : control.error());
}
