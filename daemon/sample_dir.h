// The directory of sample files, opened once: recordings are found beneath that descriptor, whatever happens
// to the path afterwards. Disk thread only (every call here can wait for the disk).
#pragma once

#include <linux/openat2.h>
#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "nvr/error.h"
#include "nvr/recording.h"
#include "shm/mapping.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

// An open sample file: one descriptor, and perhaps a map that it shares with others that read it.
struct SampleFile {
  shm::UniqueFd fd;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;  // bytes, when it was opened
  std::int64_t mtime_ns = 0;
  std::int64_t birth_ns = 0;  // 0: the file system does not tell
  CachePolicy cache = CachePolicy::kNormal;
  bool residency_known = false;  // mincore() tells what is in memory of it: the file is ours

  // What will be read; set once the range is known to lie within the file.
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  std::span<std::byte> window;  // the slots that all of it is read into

  bool has_pages = true;       // as far as is known, its pages can be brought in and mapped
  bool extents_known = false;  // where its bytes lie on the disk has been read into memory

  // place_on_disk()'s own: a stretch that lies on the disk in one piece. Length 0: none is known.
  bool has_places = true;  // as far as is known
  std::uint64_t extent_offset = 0;
  std::uint64_t extent_place = 0;
  std::uint64_t extent_length = 0;

  // The io_uring engine's own.
  std::uint32_t dio_align = 0;  // of offsets, lengths and memory; 0: reads go through the page cache
  bool is_registered = false;   // as far as it could be: `window`
  std::int32_t buffer = -1;     // under this index, or -1

  // The page cache's own.
  bool reads_as_told = false;               // the kernel's readahead is off
  bool is_counted = false;                  // among the readers of this recording
  bool reads_nowait = true;                 // as far as is known, the file system has RWF_NOWAIT
  std::shared_ptr<const shm::Mapping> map;  // of the whole file, or none
  std::uint64_t resident_from = 0;          // pages of [resident_from, resident_until) were in memory ...
  std::uint64_t resident_until = 0;
  std::uint64_t resident_at_ns = 0;  // ... then

  // The mmap engine's own.
  std::uint64_t advised_until = 0;  // file offset up to which readahead was asked for
};

// What is wrong with a file of this mode as a recording: 0, or the errno that says it best.
[[nodiscard]] int objection_to(mode_t mode);

// Which directory it is, whatever its path leads to meanwhile.
struct DirectoryIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t mount = 0;  // by which it was reached; 0: the kernel does not say (before 5.8)

  // Of the directory at `path`, or with "" of `fd` itself. Nothing, with errno, where that cannot be told.
  [[nodiscard]] static std::optional<DirectoryIdentity> of(int fd, const char* path);
  // Another directory, reached by another mount.
  [[nodiscard]] bool is_elsewhere(const DirectoryIdentity& other) const {
    return (device != other.device || inode != other.inode) && mount != other.mount;
  }
};

class SampleDir {
 public:
  // Opens `path` and makes sure that it can be searched and read. With `expected_file` (relative to it), that
  // it has that file, too: NotFound, where a mount point is empty because its disk is away. The Error names
  // the path.
  [[nodiscard]] static Result<SampleDir> open(const std::string& path, const std::string& expected_file = "");

  // Opens a recording's file beneath the directory: no symbolic links, nothing but regular files, never
  // blocking on a FIFO. A negative errno on failure: -ENOENT, -EACCES, -ELOOP (a link), -EISDIR, -ENXIO
  // (FIFO, socket, device), ...
  [[nodiscard]] int open_recording(RecordingId id, SampleFile& file) const;

  // The two halves of open_recording(), for an engine that opens by other means: how, and what to do with
  // `file.fd` afterwards. describe() returns 0 or a negative errno, and does not wait for the disk.
  [[nodiscard]] static open_how how_to_open();
  [[nodiscard]] static int describe(SampleFile& file);
  // The size of an open file now, or a negative errno; likewise without asking a server or the disk.
  [[nodiscard]] static std::int64_t size_now(const SampleFile& file);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] DirectoryIdentity identity() const { return identity_; }
  // Has it no entry at all? Asks the disk; false where that cannot be read.
  [[nodiscard]] bool is_empty() const;

 private:
  SampleDir(shm::UniqueFd fd, DirectoryIdentity identity) : fd_(std::move(fd)), identity_(identity) {}

  shm::UniqueFd fd_;
  DirectoryIdentity identity_;
};

}  // namespace nvr::daemon
