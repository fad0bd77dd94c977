#include "daemon/sample_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <memory>
#include <string_view>

namespace nvr::daemon {

namespace {

std::int64_t to_ns(const statx_timestamp& time) {
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

int objection_to(mode_t mode) {
  if (S_ISREG(mode)) return 0;
  if (S_ISDIR(mode)) return EISDIR;
  if (S_ISLNK(mode)) return ELOOP;
  return ENXIO;
}

std::optional<DirectoryIdentity> DirectoryIdentity::of(int fd, const char* path) {
  struct statx st = {};
  if (statx(fd, path, *path == '\0' ? AT_EMPTY_PATH : 0, STATX_INO | STATX_MNT_ID, &st) != 0)
    return std::nullopt;
  return DirectoryIdentity{.device = makedev(st.stx_dev_major, st.stx_dev_minor),
                           .inode = st.stx_ino,
                           .mount = (st.stx_mask & STATX_MNT_ID) != 0 ? st.stx_mnt_id : 0};
}

Result<SampleDir> SampleDir::open(const std::string& path, const std::string& expected_file) {
  shm::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open the directory of sample files " + path);
  if (faccessat(fd.get(), ".", R_OK | X_OK, AT_EACCESS) != 0)
    return fail_errno(errno, "cannot read the directory of sample files " + path);
  const auto identity = DirectoryIdentity::of(fd.get(), "");
  if (!identity) return fail_errno(errno, "cannot stat the directory of sample files " + path);
  if (!expected_file.empty() && faccessat(fd.get(), expected_file.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0)
    return fail_errno(errno, "the directory of sample files " + path + " has no " + expected_file +
                                 " (--expect-file; is its disk mounted?)");
  return SampleDir(std::move(fd), *identity);
}

bool SampleDir::is_empty() const {
  const int fd = openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fd < 0 ? nullptr : fdopendir(fd), closedir);
  if (entries == nullptr) return false;
  while (const dirent* const entry = readdir(entries.get()))
    if (std::string_view(entry->d_name) != "." && std::string_view(entry->d_name) != "..") return false;
  return true;
}

open_how SampleDir::how_to_open() {
  open_how how = {};
  how.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return how;
}

int SampleDir::open_recording(RecordingId id, SampleFile& file) const {
  const std::string name = file_name_of(id);
  open_how how = how_to_open();
  long fd = 0;
  do fd = syscall(SYS_openat2, fd_.get(), name.c_str(), &how, sizeof(how));
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return -errno;
  file.fd.reset(static_cast<int>(fd));
  return describe(file);
}

std::int64_t SampleDir::size_now(const SampleFile& file) {
  struct statx st = {};
  if (statx(file.fd.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &st) != 0) return -errno;
  return static_cast<std::int64_t>(st.stx_size);
}

int SampleDir::describe(SampleFile& file) {
  // An open file's inode is in memory; DONT_SYNC keeps file systems in user space and on networks from asking
  // again.
  struct statx st = {};
  if (statx(file.fd.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_BTIME, &st) != 0)
    return -errno;
  if (const int objection = objection_to(st.stx_mode)) return -objection;
  file.device = makedev(st.stx_dev_major, st.stx_dev_minor);
  file.inode = st.stx_ino;
  file.size = st.stx_size;
  file.mtime_ns = to_ns(st.stx_mtime);
  file.birth_ns = (st.stx_mask & STATX_BTIME) != 0 ? to_ns(st.stx_btime) : 0;
  static const uid_t own_uid = geteuid();
  file.residency_known = st.stx_uid == own_uid;
  return 0;
}

}  // namespace nvr::daemon
