#include "daemon/closing.h"

#include <unistd.h>

#include <algorithm>

namespace nvr::daemon {

void Closing::add(shm::UniqueFd fd) {
  if (!fd) return;
  if (count_ == fds_.size()) close_all();
  fds_[count_++] = fd.release();
}

void Closing::close_all() {
  std::sort(fds_.begin(), fds_.begin() + count_);
  for (std::size_t first = 0; first < count_;) {
    std::size_t next = first + 1;
    while (next < count_ && fds_[next] == fds_[next - 1] + 1) ++next;
    if (next == first + 1 ||
        close_range(static_cast<unsigned>(fds_[first]), static_cast<unsigned>(fds_[next - 1]), 0) != 0)
      std::for_each(fds_.begin() + first, fds_.begin() + next, close);
    first = next;
  }
  count_ = 0;
}

}  // namespace nvr::daemon
