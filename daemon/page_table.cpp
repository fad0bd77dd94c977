#include "daemon/page_table.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cassert>

namespace nvr::daemon {

PageTable::PageTable() : pagemap_(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) {}

const PageTable& PageTable::of_this_process() {
  static const PageTable table;
  return table;
}

std::size_t PageTable::count_present(const std::byte* begin, std::size_t count) const {
  assert(count <= kMostPages);
  constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;
  std::array<std::uint64_t, kMostPages> entries;
  const auto first = reinterpret_cast<std::uintptr_t>(begin) / page_bytes();
  const ssize_t got = pread(pagemap_.get(), entries.data(), count * sizeof(entries[0]),
                            static_cast<off_t>(first * sizeof(entries[0])));
  if (got < 0) return 0;
  const auto* const end = entries.data() + static_cast<std::size_t>(got) / sizeof(entries[0]);
  const auto* const missing = std::find_if(static_cast<const std::uint64_t*>(entries.data()), end,
                                           [](std::uint64_t entry) { return (entry & kPresent) == 0; });
  return static_cast<std::size_t>(missing - entries.data());
}

}  // namespace nvr::daemon
