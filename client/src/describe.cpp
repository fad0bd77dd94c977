#include "describe.h"

#include <errno.h>

#include <cstdio>
#include <system_error>

namespace nvr::internal {
namespace {

// The bound, and what raises it.
std::string too_many_open(const shm::Descriptor& d) {
  if (d.sys_errno == ENFILE)
    return "the daemon's machine has as many files open as it may: raise its limit (sysctl fs.file-max)";
  std::string text = "the daemon has as many descriptors in use as ";
  text += d.sys_errno == 0 ? "one user may have" : "it may have";
  if (d.file_size != 0) text += " (" + std::to_string(d.file_size) + ")";
  return text +
         ": end other streams, or raise its limit on open files (RLIMIT_NOFILE: ulimit -n, LimitNOFILE=)";
}

std::string sentence(const shm::Descriptor& d, const OpenRequest& request, const std::string& directory) {
  const std::string recording = "recording " + to_string(request.recording);
  const std::string file = directory + "/" + file_name_of(request.recording);
  const std::string why = std::generic_category().message(d.sys_errno);
  switch (d.detail) {
    case shm::Detail::kNotRegular:
      return recording + " is not a regular file (" + file + "): " + why;
    case shm::Detail::kOpenFailed:
      if (static_cast<Code>(d.code) == Code::kNotFound)
        return recording + " does not exist (no file " + file + ")";
      return recording + " cannot be opened (" + file + "): " + why;
    case shm::Detail::kRangeBeyondEnd:
      return "range " + std::to_string(request.begin) + "-" +
             (request.end == kToEnd ? "end" : std::to_string(request.end)) + " of " + recording +
             " reaches beyond the file's " + std::to_string(d.file_size) + " bytes (" + file + ")";
    case shm::Detail::kReadFailed:
      return recording + " cannot be read at offset " + std::to_string(d.offset) + " (" + file + "): " + why;
    case shm::Detail::kTruncated:
      return recording + " became shorter while it was read: it ends at " + std::to_string(d.offset) +
             " now (" + file + ")";
    case shm::Detail::kTooManyOpen:
      return recording + " cannot be opened: " + too_many_open(d);
    case shm::Detail::kNotSupported:
      return recording +
             ": this daemon cannot read past the page cache (its engine is mmap, or the file system has no "
             "O_DIRECT);"
             " use cache policy normal or drop";
    case shm::Detail::kDiskThreadDied:
      return recording + ": the daemon can no longer read its disk; restart it";
    case shm::Detail::kMapFailed:
      return recording + " cannot be mapped (" + file + "): " + why;
    case shm::Detail::kNone:
      break;
  }
  return recording + " failed (" + file + ")";
}

}  // namespace

Code checked_code(std::uint32_t code) {
  const bool is_error = code > static_cast<std::uint32_t>(Code::kOk) &&
                        code <= static_cast<std::uint32_t>(Code::kDataLoss) &&
                        code != static_cast<std::uint32_t>(Code::kDeadlineExceeded);
  return is_error ? static_cast<Code>(code) : Code::kUnknown;
}

Error describe(const shm::Descriptor& descriptor, const OpenRequest& request, const std::string& directory) {
  const bool has_place =
      descriptor.detail == shm::Detail::kReadFailed || descriptor.detail == shm::Detail::kTruncated;
  return {.code = checked_code(descriptor.code),
          .sys_errno = descriptor.sys_errno,
          .offset = has_place ? descriptor.offset : kNoOffset,
          .message = sentence(descriptor, request, directory)};
}

std::string describe_stall(const std::optional<shm::OldestOperation>& oldest, std::uint64_t now_ns) {
  const std::uint64_t stuck_ns = oldest ? shm::stuck_for_ns(*oldest, now_ns) : 0;
  if (stuck_ns == 0) return {};
  char duration[32];
  std::snprintf(duration, sizeof(duration), "%.1f s", static_cast<double>(stuck_ns) / 1e9);
  std::string text = shm::answers_others(*oldest, now_ns) ? "; one operation has been stuck for "
                                                          : "; the disk has been stuck for ";
  text += std::string(duration) + " on ";
  const std::string recording = to_string(RecordingId::from_composite(oldest->recording));
  if (oldest->operation == shm::DiskOperation::kOpen) return text + "opening " + recording;
  return text + "a read from " + recording + " at offset " + std::to_string(oldest->offset);
}

}  // namespace nvr::internal
