// How the laboratory says that something went wrong. Any thread.
#pragma once

#include <stdexcept>
#include <string_view>

namespace nvr::lab {

// What a function of the laboratory throws when it cannot do its work.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// For destructors, which cannot throw: prints what was found. The program is to end with a failure.
void report_late_failure(std::string_view what);
[[nodiscard]] bool has_late_failures();

}  // namespace nvr::lab
