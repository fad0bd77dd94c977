#include "nvr/error.h"

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace nvr {

std::string_view to_string(Code code) {
  static constexpr std::array<std::string_view, 16> kNames = {
      "Ok",       "Cancelled",     "Unknown",          "InvalidArgument",   "DeadlineExceeded",
      "NotFound", "AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
      "Aborted",  "OutOfRange",    "Unimplemented",    "Internal",          "Unavailable",
      "DataLoss"};
  const auto index = static_cast<std::size_t>(code);
  return index < kNames.size() ? kNames[index] : "Unknown";
}

tl::unexpected<Error> fail(Code code, std::string message) {
  return tl::unexpected<Error>(Error{.code = code, .message = std::move(message)});
}

tl::unexpected<Error> fail_errno(int sys_errno, std::string_view what) {
  std::string message(what);
  message += ": ";
  message += std::generic_category().message(sys_errno);
  return tl::unexpected<Error>(
      Error{.code = code_from_errno(sys_errno), .sys_errno = sys_errno, .message = std::move(message)});
}

Code code_from_errno(int sys_errno) {
  switch (sys_errno) {
    case 0:
      return Code::kOk;
    case ENOENT:
      return Code::kNotFound;
    case EACCES:
    case EPERM:
      return Code::kPermissionDenied;
    case ELOOP:
    case ENOTDIR:
    case EISDIR:
    case ENXIO:
    case ENODEV:
    case EXDEV:
      return Code::kFailedPrecondition;
    case EIO:
    case EUCLEAN:
    case EBADMSG:
      return Code::kDataLoss;
    case EFBIG:  // the limit on file sizes
    case ENOMEM:
    case ENFILE:
    case EMFILE:
    case ENOSPC:
    case EDQUOT:
    case ENOBUFS:
    case ETOOMANYREFS:
      return Code::kResourceExhausted;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case ENOTCONN:
    case EAGAIN:
    case ESHUTDOWN:
      return Code::kUnavailable;
    case ETIMEDOUT:
      return Code::kDeadlineExceeded;
    case EINVAL:
      return Code::kInvalidArgument;
    case EEXIST:
    case EADDRINUSE:
      return Code::kAlreadyExists;
    case ENOSYS:
    case EOPNOTSUPP:
      return Code::kUnimplemented;
    case ECANCELED:
      return Code::kCancelled;
    default:
      return Code::kInternal;
  }
}

}  // namespace nvr
