// Errors as values: gRPC's canonical codes, the errno behind them, and a sentence for a person.
//
//   nvr::Result<nvr::Client> client = nvr::Client::connect(path);
//   if (!client) std::cerr << client.error().message << '\n';
//
// Plain values; safe to copy and to use from any thread.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "nvr/export.h"

namespace nvr {

// gRPC's canonical codes with gRPC's numbers, so that they can be passed on as they are.
enum class Code : std::uint16_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
};

// "NotFound", "DataLoss", ...; "Unknown" for a number that is no code.
[[nodiscard]] NVR_PUBLIC std::string_view to_string(Code code);

// The offset of an error that has no place in a file.
inline constexpr std::uint64_t kNoOffset = std::numeric_limits<std::uint64_t>::max();

struct [[nodiscard]] Error {
  Code code = Code::kUnknown;
  int sys_errno = 0;                 // 0 where no system call failed
  std::uint64_t offset = kNoOffset;  // byte offset in the recording's file, for DataLoss
  std::string message;               // names the thing that failed, and what to do about it
};

template <class T>
using Result = tl::expected<T, Error>;

// An error without an errno.
[[nodiscard]] NVR_PUBLIC tl::unexpected<Error> fail(Code code, std::string message);

// The one errno mapper: the canonical code for `sys_errno`, and `what` with the errno's text appended.
[[nodiscard]] NVR_PUBLIC tl::unexpected<Error> fail_errno(int sys_errno, std::string_view what);
[[nodiscard]] NVR_PUBLIC Code code_from_errno(int sys_errno);

}  // namespace nvr
