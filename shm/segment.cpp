#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <string>

namespace nvr::shm {
namespace {

constexpr int kSealsOfR = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr int kSealsOfW = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

constexpr int seals_of(SegmentKind kind) {
  return kind == SegmentKind::kRead ? kSealsOfR : kSealsOfW;
}
constexpr const char* name_of(SegmentKind kind) {
  return kind == SegmentKind::kRead ? "nvr-R" : "nvr-W";
}

Result<UniqueFd> reopen(int fd, int flags, std::string_view what) {
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  UniqueFd reopened(open(path.c_str(), flags | O_CLOEXEC));
  if (!reopened && errno == ENOENT)
    return fail(Code::kFailedPrecondition,
                "cannot reopen " + std::string(what) + " through /proc: it is not mounted any more");
  if (!reopened) return fail_errno(errno, "cannot reopen " + std::string(what) + " through /proc");
  return reopened;
}

}  // namespace

Result<OwnedSegment> OwnedSegment::create(SegmentKind kind, std::uint64_t bytes) {
  const std::string name = name_of(kind);
  UniqueFd memfd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd) return fail_errno(errno, "cannot create shared memory " + name);
  if (ftruncate(memfd.get(), static_cast<off_t>(bytes)) != 0)
    return fail_errno(errno, "cannot size shared memory " + name + " to " + std::to_string(bytes) + " bytes");
  auto mapping = Mapping::create(memfd.get(), 0, bytes,
                                 kind == SegmentKind::kRead ? Access::kReadWrite : Access::kReadOnly, name);
  if (!mapping) return tl::unexpected(mapping.error());
  if (fcntl(memfd.get(), F_ADD_SEALS, seals_of(kind)) != 0)
    return fail_errno(errno, "cannot seal shared memory " + name);
  // From memfd_create's description the kernel's lease code would not know that we are an opener; from this
  // one it does.
  auto own = reopen(memfd.get(), O_RDWR, name);
  if (!own) return tl::unexpected(own.error());
  return OwnedSegment(kind, bytes, std::move(*own), std::move(*mapping));
}

Result<UniqueFd> OwnedSegment::descriptor_for_client() const {
  return reopen(fd_.get(), kind_ == SegmentKind::kRead ? O_RDONLY : O_RDWR, name_of(kind_));
}

bool OwnedSegment::held_elsewhere() const {
  if (fcntl(fd_.get(), F_SETLEASE, F_WRLCK) != 0) return true;
  fcntl(fd_.get(), F_SETLEASE, F_UNLCK);
  return false;
}

Result<Mapping> attach_segment(SegmentKind kind, int fd, std::uint64_t bytes) {
  const std::string name = name_of(kind);
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) return fail_errno(errno, "the daemon's descriptor for " + name + " is no sealed memory");
  if ((seals & seals_of(kind)) != seals_of(kind))
    return fail(Code::kFailedPrecondition, "shared memory " + name + " from the daemon lacks its seals");
  struct stat st = {};
  if (fstat(fd, &st) != 0) return fail_errno(errno, "cannot stat shared memory " + name);
  if (static_cast<std::uint64_t>(st.st_size) != bytes)
    return fail(Code::kFailedPrecondition, "shared memory " + name + " from the daemon has " +
                                               std::to_string(st.st_size) + " bytes instead of " +
                                               std::to_string(bytes));
  return Mapping::create(fd, 0, bytes, kind == SegmentKind::kRead ? Access::kReadOnly : Access::kReadWrite,
                         name);
}

}  // namespace nvr::shm
