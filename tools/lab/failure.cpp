#include "tools/lab/failure.h"

#include <atomic>
#include <cstdio>

namespace nvr::lab {
namespace {

std::atomic<bool> late_failures = false;

}  // namespace

void report_late_failure(std::string_view what) {
  std::fprintf(stderr, "\nFAILED: %.*s\n", static_cast<int>(what.size()), what.data());
  late_failures = true;
}

bool has_late_failures() {
  return late_failures;
}

}  // namespace nvr::lab
