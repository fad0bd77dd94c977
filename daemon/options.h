// What the daemon was asked to do. Read once, at start.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nvr/error.h"

namespace nvr::daemon {

enum class DeviceKind { kAuto, kRotational, kSolid };

struct Options {
  std::string directory;
  std::string socket_path;
  int passed_listener = -1;  // by systemd: takes the place of socket_path, which is then where it listens
  std::string engine = "mmap";
  std::uint64_t slow_operation_ms = 1000;
  std::uint32_t fail_fast_s = 0;  // 0: never
  std::uint32_t max_clients = 256;
  std::uint32_t max_clients_per_uid = 0;          // 0: max_clients
  std::uint32_t connects_per_second = 0;          // of a user; 0: any number
  std::uint64_t client_memory_bytes = 64u << 20;  // most that one connection may ask for
  std::uint64_t total_memory_bytes = 0;           // 0: a quarter of available_memory_bytes()
  std::vector<std::uint32_t> allowed_uids;        // besides the daemon's own and root
  std::uint32_t io_depth = 0;                     // 0: by the kind of device
  DeviceKind device_kind = DeviceKind::kAuto;
  std::uint32_t reserve_percent = 0;  // of a spinning disk's time, for others
  bool fifo_visits = false;           // to measure the sweep against
  bool wait_for_directory = false;
  std::string expected_file;  // that the directory must have before it is served; empty: none
  bool sandbox = true;
  std::string metrics;  // HOST:PORT; empty: none
  std::string log_level = "info";
};

// Parses the command line, and the file that --config names. Ends the process for --help, --version,
// --check-config and --print-config (0), and for what cannot be right (2, with one clear line on stderr).
[[nodiscard]] Options parse_options(int argc, char** argv);
// The options of a configuration file alone. InvalidArgument, with a sentence, for what cannot be right.
[[nodiscard]] Result<Options> read_config(const std::string& path);

}  // namespace nvr::daemon
