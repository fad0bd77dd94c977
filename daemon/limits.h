// Limits that the system puts on the daemon: which it needs, which it met, and what to do about them. Every
// one is either wide enough, or named in the sentence by which the daemon does not start or refuses a client.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "daemon/admission.h"
#include "nvr/error.h"

namespace nvr::daemon {

// Before all else: a stack that main() and all threads can do with, whatever RLIMIT_STACK is.
[[nodiscard]] Result<void> set_up_stacks();

// Of descriptors, what the bounds can ask for, as far as the hard limit allows, and no more.
void set_descriptor_limit(std::uint32_t max_clients, bool has_metrics);

struct DescriptorsLeft {
  DescriptorLimits limits;
  std::string note;  // for the log, where they do not suffice for all clients; else empty
};
// Once the daemon has all of its own. Fails where they do not suffice for one client.
[[nodiscard]] Result<DescriptorsLeft> share_out_descriptors(std::uint32_t max_clients, bool has_metrics);

// Is there /proc/self/fd? Segments are handed to clients through it.
[[nodiscard]] Result<void> check_proc();

// Is there memory to be had for what every event allocates? Asked at the start and after what takes much of
// it, so that nothing small ever fails.
[[nodiscard]] Result<void> check_memory_left();

// Runs `body` on a new thread. Returns once the thread has called `prepare`: it gives up its privileges
// there, before the filter of system calls keeps it from doing so. `what`: "the thread that ...", for the
// error.
[[nodiscard]] Result<std::thread> start_thread(
    std::function<void()> body, std::string_view what, std::function<void()> prepare = [] {});

// With the limit behind its errno, and how to raise it, unless it says so already.
[[nodiscard]] Error with_remedy(Error error);

}  // namespace nvr::daemon
