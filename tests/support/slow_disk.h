// A directory whose files can be told to hang or to fail, while they are in use: the FUSE file system of
// slow_fs.cpp over a directory of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nvr/recording.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace nvr::test {

class SlowDisk {
 public:
  // Why there can be none on this machine; nothing if there can.
  [[nodiscard]] static std::optional<std::string> missing();

  // Mounts it at `directory`, which exists and is empty. Make the files in backing(), before they are first
  // asked for.
  explicit SlowDisk(std::string directory);
  // Releases what hangs, and unmounts.
  ~SlowDisk();
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
  // From now on every read takes this long, however many there are at a time.
  void set_read_latency(std::chrono::microseconds latency);
  // Nothing hangs and nothing fails any more.
  void release();

 private:
  void command(const std::string& line);
  void expect_answer(std::string_view expected);

  std::string directory_;
  TempDir backing_;
  shm::UniqueFd commands_;
  shm::UniqueFd answers_;
  Capture errors_;
  std::optional<Process> process_;
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
