// What all viewers share: the disks, the settings and the counters. Event-loop thread only.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tools/streamer/disk.h"
#include "tools/streamer/log.h"

namespace nvr::streamer {

struct Settings {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8080;
  std::size_t max_connections = 1024;
  std::chrono::milliseconds open_timeout{20'000};    // for a recording's first chunk; a disk spins up in 13 s
  std::chrono::milliseconds stall_timeout{30'000};   // for a later one
  std::chrono::milliseconds idle_timeout{60'000};    // for the next request
  std::chrono::milliseconds header_timeout{10'000};  // for a whole request, once it has begun
  std::chrono::milliseconds write_timeout{60'000};   // for a viewer to take anything at all
  std::chrono::milliseconds drain_timeout{10'000};   // for responses to end after SIGTERM
  std::chrono::milliseconds settle_time{60'000};     // since a recording's mtime, for caches to keep it
  bool etags_for_replicas = false;
};

// Why a connection was closed from here before its response was complete.
enum class Cut { kIdle, kHeader, kWrite, kStall, kDiskError };
inline constexpr std::size_t kCuts = 5;

struct Counters {
  std::uint64_t connections = 0;  // at the moment
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;  // at the bound
  std::array<std::uint64_t, kCuts> cut{};
  std::map<std::pair<std::string, unsigned>, std::uint64_t> responses;  // by disk ("" for none) and status
  std::map<std::string, std::uint64_t> body_bytes;                      // by disk
};

struct Service {
  Settings settings;
  std::vector<std::unique_ptr<Disk>> disks;
  Counters counters;
  bool is_draining = false;  // SIGTERM has come: no connection is kept for another request
  Log log;

  [[nodiscard]] Disk* find_disk(const std::string& name) const {
    for (const auto& disk : disks) {
      if (disk->name() == name) return disk.get();
    }
    return nullptr;
  }
};

}  // namespace nvr::streamer
