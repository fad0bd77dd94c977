// The two sides of "nvr_mmap" and "nvr_io_uring" apart, for scenarios with many clients of one daemon.
#pragma once

#include <string>

#include "nvr/client.h"
#include "tools/bench/daemon_process.h"
#include "tools/bench/system.h"

namespace nvr::bench {

// `engine`: "mmap" or "io_uring". One daemon of each engine and `setup.daemon_name` at a time.
[[nodiscard]] Result<DaemonProcess> start_nvr_daemon(const SystemSetup& setup, const std::string& engine);
// A connection of `setup.streams` streams of `setup.slots` slots to that daemon.
[[nodiscard]] Result<Client> connect_nvr_client(const SystemSetup& setup, const std::string& engine);
[[nodiscard]] Result<std::unique_ptr<System>> make_nvr_client_system(const SystemSetup& setup,
                                                                     const std::string& engine);

}  // namespace nvr::bench
