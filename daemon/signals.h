// The meaning of each signal. The daemon blocks every signal that it can catch and reads it from a
// descriptor, or ignores it, so that none ends or stops it by accident. Faults of the program (SIGSEGV, ...)
// keep their default.
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

// The log's words on a signal that does not end the daemon.
[[nodiscard]] std::string_view answer_to(int signal);

}  // namespace nvr::daemon
