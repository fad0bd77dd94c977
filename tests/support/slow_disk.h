// A directory whose files can be told to hang or to fail, while they are in use: nvr-slowdisk over a
// directory of its own, as fast as it can be.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "nvr/recording.h"
#include "tests/support/environment.h"
#include "tools/lab/server.h"
#include "tools/lab/temp_dir.h"

namespace nvr::test {

class SlowDisk {
 public:
  // Why there can be none on this machine; nothing if there can.
  [[nodiscard]] static std::optional<std::string> missing();

  // Mounts it at `directory`, which exists and is empty. Make the files in backing(), before they are first
  // asked for. `options`: more of nvr-slowdisk's.
  explicit SlowDisk(std::string directory, const std::vector<std::string>& options = {});
  // Releases what hangs, and unmounts.
  ~SlowDisk() = default;
  SlowDisk(const SlowDisk&) = delete;
  SlowDisk& operator=(const SlowDisk&) = delete;

  [[nodiscard]] const std::string& backing() const { return backing_.path(); }

  // From now on, until release(): opens or reads of the recording hang.
  void stall_opens(RecordingId id);
  void stall_reads(RecordingId id);
  // From now on reads that touch [begin, end) fail with EIO.
  void fail_reads(RecordingId id, std::uint64_t begin, std::uint64_t end);
  // Waits until an open or a read of the recording hangs.
  void wait_until_stuck(RecordingId id);
  // From now on every read takes this long, however many there are at a time. release() does not change it.
  void set_read_latency(std::chrono::microseconds latency);
  // Bytes that were read from it so far.
  [[nodiscard]] std::uint64_t bytes_read();
  // Nothing hangs and nothing fails any more.
  void release();

  // Gives nvr-slowdisk an order, and returns its answer. Throws when it is refused.
  std::string order(const std::string& line);

 private:
  std::string latency_;  // the order, if there is any
  TempDir backing_;
  TempDir control_;
  Server server_;
};

// Declare it behind the daemon: when a test fails half-way, the disk answers before the daemon has to end.
// The kernel does not reap a process of which a thread waits in an open.
class ReleaseAtEnd {
 public:
  explicit ReleaseAtEnd(SlowDisk& disk) : disk_(disk) {}
  ~ReleaseAtEnd();
  ReleaseAtEnd(const ReleaseAtEnd&) = delete;
  ReleaseAtEnd& operator=(const ReleaseAtEnd&) = delete;

 private:
  SlowDisk& disk_;
};

}  // namespace nvr::test
