// This process's page table: which pages of a map can be copied without a page fault, and so without the
// disk. It tells the truth of files of any owner, as mincore() and cachestat() do of the caller's own only.
// Disk thread only.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "shm/unique_fd.h"

namespace nvr::daemon {

// The kernel's page size. A power of two, at least kLeastPageBytes.
inline constexpr std::uint64_t kLeastPageBytes = 4096;
[[nodiscard]] inline std::uint64_t page_bytes() {
  return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

class PageTable {
 public:
  // The most pages that one look covers.
  static constexpr std::size_t kMostPages = 2048;

  // The first call opens it, which only root can do once the process is not dumpable: main() calls it before.
  static const PageTable& of_this_process();

  // How many of the `count` pages from `begin` on, one after the other, have an entry. None where the kernel
  // does not say. Precondition: count <= kMostPages.
  [[nodiscard]] std::size_t count_present(const std::byte* begin, std::size_t count) const;

 private:
  PageTable();

  shm::UniqueFd pagemap_;
};

}  // namespace nvr::daemon
