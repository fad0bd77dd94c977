// Exit codes of the command-line tools: a contract that scripts rely on.
#pragma once

#include "nvr/error.h"

namespace nvr::tools {

inline constexpr int kExitOk = 0;
inline constexpr int kExitOther = 1;
inline constexpr int kExitUsage = 2;

[[nodiscard]] constexpr int exit_code_of(Code code) {
  switch (code) {
    case Code::kOk:
      return kExitOk;
    case Code::kNotFound:
      return 3;
    case Code::kOutOfRange:
      return 4;
    case Code::kDataLoss:
      return 5;
    case Code::kUnavailable:
      return 6;
    case Code::kDeadlineExceeded:
      return 7;
    case Code::kPermissionDenied:
      return 8;
    case Code::kResourceExhausted:
      return 9;
    default:
      return kExitOther;
  }
}

}  // namespace nvr::tools
