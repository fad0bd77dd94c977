// The server process of "unix_socket": what a reader daemon would be that sends bytes instead of sharing
// memory. One thread, one connection per stream; it sends straight from the mapped file, so that the kernel's
// copy into the socket is the only one on this side.
#pragma once

#include <cstdint>
#include <span>

#include "shm/unique_fd.h"
#include "tools/bench/files.h"

namespace nvr::bench {

// What a client sends on a connection; the answer is the bytes. The next request comes after the last of
// them.
struct UnixRequest {
  std::uint64_t file = 0;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// Serves until a connection hangs up. Returns the process's exit code.
[[nodiscard]] int serve_unix_sockets(const FileSet& files, std::span<const shm::UniqueFd> connections);

}  // namespace nvr::bench
