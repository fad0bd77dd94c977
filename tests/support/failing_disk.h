// A modelled disk that fails on order, with recordings that nothing has in memory and a daemon on it. Test
// thread only.
#pragma once

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/laboratory.h"
#include "tests/support/streams.h"

namespace nvr::test {

inline constexpr std::uint64_t kMiB = 1 << 20;

// Ends well whatever has become of the disk: a process with a thread in an uninterruptible read is not reaped
// before that read ends.
struct FailingDisk {
  explicit FailingDisk(std::uint32_t count, std::uint64_t bytes = 4 * kMiB + 321) {
    REQUIRE(mkdir((disk / "samples").c_str(), 0755) == 0);
    for (std::uint32_t i = 0; i < count; ++i)
      files.push_back(make_recording(disk / "samples", {1, i}, bytes, test_seed() + i));
    disk.cool();
  }
  ~FailingDisk() {
    try {
      disk.order("clear");
    } catch (const TestFailure&) {  // it was taken down, or its server has ended
    }
    daemon.reset();
  }
  FailingDisk(const FailingDisk&) = delete;
  FailingDisk& operator=(const FailingDisk&) = delete;

  DaemonProcess& start(std::vector<std::string> arguments = {}) {
    return daemon.emplace(DaemonOptions{
        .directory = disk / "samples", .socket = site / "reader.sock", .arguments = std::move(arguments)});
  }

  TempDir site;
  // As fast as it can be: what counts is how it fails.
  Laboratory disk{{"--size", "128M", "--seek", "0", "--rotation", "0", "--bandwidth", "0"}};
  std::vector<RecordingFile> files;
  std::optional<DaemonProcess> daemon;
};

}  // namespace nvr::test
