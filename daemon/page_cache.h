// What is in memory already, copied into slots without waiting for the disk: the common beginning of every
// engine. Disk thread only.
//
// By a read that never waits (RWF_NOWAIT); or from a map of the file, where the file system has no such read,
// and for files that have been mapped because they are read again and again (file_maps.h). Before a copy from
// a map the kernel has said that the pages are there, so the SIGBUS guard around it is for truncation and
// reclaim only: mincore(), or for files of others, of which that tells nothing, the page table
// (page_table.h).
#pragma once

#include <optional>

#include "daemon/file_maps.h"
#include "daemon/operation.h"

namespace nvr::daemon {

// Is none of, or all of, [offset, offset + length) in the page cache? Empty, where the kernel does not say
// (cachestat: Linux 6.5; from 6.14 on only of files that the caller owns or may write).
enum class Presence : std::uint8_t { kNone, kSome, kAll };
[[nodiscard]] std::optional<Presence> presence_of(int fd, std::uint64_t offset, std::uint64_t length);

// From now on the kernel reads of this file what it is asked for, and nothing ahead by itself: that would be
// out of turn, of any length (read_ahead_kb), and given back by nobody.
void read_as_told(SampleFile& file);

// The file's bytes that can be read, or not, by themselves, past the page cache. 0 where reads go through it:
// they come as far as they can, a page at a time.
[[nodiscard]] std::uint32_t block_of(SampleFile& file);

class PageCache {
 public:
  PageCache();

  // Copies what is in memory of what is left of the read, up to the first page that is not. Bytes copied, at
  // least 1; 0: the file ends there; -EAGAIN: the first page is not in memory, or nobody can tell, or the
  // file has no pages (SampleFile::has_pages); or another negative errno.
  [[nodiscard]] std::int64_t read(Operation& operation);
  // The same, of files that are mapped because they are read again and again: for an engine whose own reads
  // do not wait for what is in memory either. read_hot() copies all that is left of the read or, with
  // -EAGAIN, nothing: in pieces it would have the disk read in pieces. A file is hot until something of it
  // was missing; a read that was queued while the file was hot is -EAGAIN after that.
  [[nodiscard]] bool is_hot(SampleFile& file);
  [[nodiscard]] static std::int64_t read_hot(Operation& operation);
  // A read of a hot file of others that read_hot() could not tell about has been done by other means: its
  // next `result` bytes were in memory, and get their page-table entries; or, with no bytes, they were not,
  // and the file is no longer hot.
  static void learn(const Operation& operation, std::int64_t result);
  // The same by system call alone: leaves no trace. `flags` besides RWF_NOWAIT.
  [[nodiscard]] static std::int64_t read_nowait(Operation& operation, int flags = 0);
  // The next `length` bytes of it, which have just been brought in: now a fault is the better risk than to
  // bring them in for ever. Bytes copied, 0, or a negative errno; -EAGAIN only of a file without pages.
  [[nodiscard]] std::int64_t read_brought_in(Operation& operation, std::uint32_t length);

  // To be called when the disk thread has nothing to do: gives back what is not in use. Returns after how
  // many milliseconds to come again, or -1.
  int rest() { return maps_.let_go_of_idle(shm::now_ns()); }

 private:
  static std::int64_t read_mapped(Operation& operation, std::uint64_t end);
  [[nodiscard]] bool map(SampleFile& file);

  FileMaps maps_;
};

}  // namespace nvr::daemon
