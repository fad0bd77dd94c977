// What each signal means to the daemon. All that can be caught and are no fault of the program's are blocked
// and read from a descriptor, or ignored: none of them ends or stops the daemon by accident.
#pragma once

#include <string>
#include <string_view>

#include "nvr/error.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

// Before any thread exists, so for all of them. Returns a signalfd, without signals that are ignored.
[[nodiscard]] Result<shm::UniqueFd> set_up_signals();

// Those that ask the daemon to end.
[[nodiscard]] bool is_end(int signal);

// "SIGHUP", "SIGRTMIN+3"
[[nodiscard]] std::string name_of_signal(int signal);

// What the log says of a signal that does not end the daemon.
[[nodiscard]] std::string_view answer_to(int signal);

}  // namespace nvr::daemon
