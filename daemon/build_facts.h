// What --version says: version and protocol, and what the program was built by and with. Pure.
#pragma once

#include <string>

namespace nvr::daemon {

[[nodiscard]] std::string build_facts();

}  // namespace nvr::daemon
