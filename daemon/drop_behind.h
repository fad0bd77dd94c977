// Reads that leave nothing of their own in the page cache (CachePolicy::kDrop): what was there before stays,
// what they brought in goes. By RWF_DONTCACHE where kernel and file system have it (Linux 6.14); elsewhere
// what a read brought in is dropped after it. Disk thread only.
#pragma once

#include "daemon/operation.h"

namespace nvr::daemon {

class DropBehind {
 public:
  // For every read of such a file: preadv2's flags, or an sqe's rw_flags.
  [[nodiscard]] int flags() const;
  // A read with these flags was answered EOPNOTSUPP: from now on it is done the other way.
  void set_unsupported() { has_dontcache_ = false; }

  // Before and after each read of such a file that may go to the disk. before() notes in the operation
  // whether the pages it brings in are its own.
  void before(Operation& operation) const;
  void after(Operation& operation) const;

 private:
  bool has_dontcache_ = true;  // as far as is known
};

// The page cache may forget the pages that lie whole within [begin, end): they were brought in, and nobody
// will read them.
void give_back(const SampleFile& file, std::uint64_t begin, std::uint64_t end);

}  // namespace nvr::daemon
