// Maps of whole sample files, for recordings that are read again and again: what several viewers watch is
// mapped once, and its page-table entries stay filled from one to the next. Time is passed in
// (shm::now_ns()). Disk thread only.
//
// A map keeps its file's blocks on the disk, also of a recording that has been deleted. So none outlives its
// last reader by more than kLinger.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "shm/clock.h"
#include "shm/mapping.h"

namespace nvr::daemon {

struct SampleFile;

class FileMaps {
 public:
  static constexpr std::uint64_t kLingerNs = 3 * shm::kSecond;
  static constexpr std::size_t kMaxFiles = 64;
  // A read by system call costs less than filling page-table entries and copying, and copying alone less than
  // a read by system call: 60, 139 and 36 us a MiB in 4 KiB folios (Linux 6.18, memcpy). So the first readers
  // use the system call, and from this one on the entries are worth their price.
  static constexpr std::uint32_t kReadersBeforeMap = 3;
  // Who reads less had better not be counted: for what a few system calls bring, the map itself costs more
  // than the bytes do.
  static constexpr std::uint64_t kLeastBytes = 512U << 10;

  // Counts one more reader of `file`. Returns a map of at least [0, file.end), or null while it is not worth
  // it or cannot be had.
  [[nodiscard]] std::shared_ptr<const shm::Mapping> count_reader(const SampleFile& file,
                                                                 std::uint64_t now_ns);
  // The same, worth it or not. Its Error has the errno.
  [[nodiscard]] Result<std::shared_ptr<const shm::Mapping>> map(const SampleFile& file, std::uint64_t now_ns);

  // Lets go of what nobody has used for kLinger. Returns after how many milliseconds to come again; -1: there
  // is nothing left.
  int let_go_of_idle(std::uint64_t now_ns);

 private:
  // Which file it is: an inode number alone is given to another as soon as its file is gone.
  struct Identity {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::int64_t birth_ns = 0;
    std::int64_t mtime_ns = 0;  // where no birth time is known

    friend bool operator==(const Identity&, const Identity&) = default;
  };
  struct Entry {
    Identity identity;
    std::uint32_t readers = 0;
    std::uint64_t used_ns = 0;  // when a reader was last seen
    std::shared_ptr<const shm::Mapping> map;
  };

  [[nodiscard]] static Identity identity_of(const SampleFile& file);
  Entry& entry_of(const SampleFile& file, std::uint64_t now_ns);

  std::vector<Entry> entries_;
};

}  // namespace nvr::daemon
