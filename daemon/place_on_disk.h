// Where a recording's bytes lie on its disk, to go there in order. Disk thread only.
#pragma once

#include <cstdint>

#include "daemon/sample_dir.h"

namespace nvr::daemon {

// The place of `offset` on the device, in bytes, by FIEMAP; where the file system has none, the recording's
// id: ids rise in the order in which recordings were written. Until the file's extents are known, too: the
// disk is not asked.
[[nodiscard]] std::uint64_t place_on_disk(SampleFile& file, std::uint64_t recording, std::uint64_t offset);

}  // namespace nvr::daemon
