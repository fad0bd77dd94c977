// Descriptors that are to be closed, in as few system calls as their numbers allow: those of files that were
// opened one after the other lie side by side. Disk thread only.
#pragma once

#include <array>
#include <cstddef>

#include "shm/unique_fd.h"

namespace nvr::daemon {

class Closing {
 public:
  Closing() = default;
  Closing(const Closing&) = delete;
  Closing& operator=(const Closing&) = delete;
  ~Closing() { close_all(); }

  // To be closed by close_all(), or when as many wait for it as there is room for.
  void add(shm::UniqueFd fd);
  void close_all();

 private:
  std::array<int, 16> fds_ = {};
  std::size_t count_ = 0;
};

}  // namespace nvr::daemon
