// Where the programs of this build are.
#pragma once

#include <string>

namespace nvr::lab {

[[nodiscard]] std::string path_of_daemon();
[[nodiscard]] std::string path_of_cat();
[[nodiscard]] std::string path_of_ctl();
[[nodiscard]] std::string path_of_slowdisk();  // empty: it was not built

// The repository.
[[nodiscard]] std::string source_directory();

}  // namespace nvr::lab
