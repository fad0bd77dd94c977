// The streams text: what the daemon tells `nvr-readerctl streams` and `top` about every open stream. Control
// thread only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/connection.h"

namespace nvr::daemon {

// More are left out, and counted: a text of all that there could be would take the control thread long enough
// to be missed by clients.
inline constexpr std::size_t kMaxStreamsListed = 4096;

// JSON, UTF-8, one line.
[[nodiscard]] std::string streams_json(const std::vector<const Connection*>& connections,
                                       std::uint64_t now_ns);

}  // namespace nvr::daemon
