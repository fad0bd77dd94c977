// SIGINT and SIGTERM as a flag to look at, so that what was brought up is taken down again.
#pragma once

namespace nvr::lab {

void catch_interrupts();
[[nodiscard]] bool is_interrupted();

}  // namespace nvr::lab
