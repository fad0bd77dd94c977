// Who is at the other end of a socket, by the kernel's word.
#pragma once

#include <cstdint>

namespace nvr::daemon {

struct PeerIdentity {
  std::int32_t pid = 0;
  std::uint32_t uid = 0;
};

}  // namespace nvr::daemon
