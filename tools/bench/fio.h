// fio's io_uring engine on the same files: what the disk gives to a program that does nothing with it.
#pragma once

#include <optional>

#include "tools/bench/measure.h"

namespace nvr::bench {

// Reads the files once, from begin to end; `streams` of them, all at a time. The flow is what fio says of
// itself, start and end of the process not counted. Nothing, if fio is not installed or does not work here.
[[nodiscard]] std::optional<Flow> run_fio(const FileSet& files, std::size_t streams);

}  // namespace nvr::bench
