#include "tools/slowdisk/image_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>
#include <utility>
#include <vector>

#include "tools/slowdisk/fuse_job.h"

namespace nvr::slowdisk {
namespace {

constexpr std::string_view kName = "disk";
constexpr fuse_ino_t kDisk = 2;
constexpr double kForEver_s = 86'400;  // names and sizes never change

class WriteJob final : public FuseJob {
 public:
  WriteJob(fuse_req_t request, int fd, std::vector<char> bytes, off_t offset)
      : FuseJob(request), fd_(fd), bytes_(std::move(bytes)), offset_(offset) {}

 protected:
  [[nodiscard]] int work(const Verdict&) override {
    std::size_t done = 0;
    while (done < bytes_.size()) {
      const ssize_t count =
          pwrite(fd_, bytes_.data() + done, bytes_.size() - done, offset_ + static_cast<off_t>(done));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno;
      done += static_cast<std::size_t>(count);
    }
    return 0;
  }
  int reply(fuse_req_t request) override { return fuse_reply_write(request, bytes_.size()); }

 private:
  int fd_;
  std::vector<char> bytes_;
  off_t offset_;
};

// Flushes: the image is a laboratory's, nothing in it has to survive the machine.
class FlushJob final : public FuseJob {
 public:
  using FuseJob::FuseJob;

 protected:
  [[nodiscard]] int work(const Verdict&) override { return 0; }
  int reply(fuse_req_t request) override { return fuse_reply_err(request, 0); }
};

// Gives room back (mkfs and ext4 discard what they do not use).
class AllocateJob final : public FuseJob {
 public:
  struct Place {
    int fd = -1;
    int mode = 0;
    off_t offset = 0;
    off_t length = 0;
  };
  AllocateJob(fuse_req_t request, const Place& place) : FuseJob(request), place_(place) {}

 protected:
  [[nodiscard]] int work(const Verdict&) override {
    return fallocate(place_.fd, place_.mode, place_.offset, place_.length) == 0 ? 0 : errno;
  }
  int reply(fuse_req_t request) override { return fuse_reply_err(request, 0); }

 private:
  Place place_;
};

struct stat attributes(fuse_ino_t inode, std::uint64_t size_bytes) {
  struct stat st = {};
  st.st_ino = inode;
  st.st_uid = geteuid();
  st.st_gid = getegid();
  st.st_nlink = inode == FUSE_ROOT_ID ? 2 : 1;
  st.st_mode = inode == FUSE_ROOT_ID ? S_IFDIR | 0700 : S_IFREG | 0600;
  if (inode == kDisk) st.st_size = static_cast<off_t>(size_bytes);
  st.st_blksize = 4096;
  return st;
}

}  // namespace

struct ImageFs::Operations {
  static ImageFs& self(fuse_req_t request) { return *static_cast<ImageFs*>(fuse_req_userdata(request)); }

  static void init(void*, fuse_conn_info* connection) { set_up_connection(*connection); }

  static void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
    if (parent != FUSE_ROOT_ID || name != kName) {
      fuse_reply_err(request, ENOENT);
      return;
    }
    fuse_entry_param entry = {};
    entry.ino = kDisk;
    entry.attr = attributes(kDisk, self(request).size_bytes_);
    entry.attr_timeout = kForEver_s;
    entry.entry_timeout = kForEver_s;
    fuse_reply_entry(request, &entry);
  }

  static void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
    const struct stat st = attributes(inode, self(request).size_bytes_);
    fuse_reply_attr(request, &st, kForEver_s);
  }

  // Permissions and times may be set, to no effect; the size may not.
  static void setattr(fuse_req_t request, fuse_ino_t inode, struct stat*, int what, fuse_file_info*) {
    if ((what & FUSE_SET_ATTR_SIZE) != 0) {
      fuse_reply_err(request, EPERM);
      return;
    }
    getattr(request, inode, nullptr);
  }

  static void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    if (inode != kDisk) {
      fuse_reply_err(request, EISDIR);
      return;
    }
    info->direct_io = 1;
    fuse_reply_open(request, info);
  }

  static void readdir(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info*) {
    char entry[256];
    std::size_t length = 0;
    if (offset == 0) {
      const struct stat st = attributes(kDisk, 0);
      length = fuse_add_direntry(request, entry, std::min(size, sizeof(entry)), kName.data(), &st, 1);
    }
    fuse_reply_buf(request, entry, length);
  }

  static void read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info*) {
    submit(request, Operation::kRead, offset, size,
           std::make_unique<ReadJob>(request, ReadJob::Place{.fd = self(request).fd_.get(),
                                                             .offset = static_cast<std::uint64_t>(offset)}));
  }

  // FUSE's buffer is good until this returns; the write may wait for longer.
  static void write(fuse_req_t request, fuse_ino_t, const char* bytes, std::size_t size, off_t offset,
                    fuse_file_info*) {
    ImageFs& fs = self(request);
    const auto begin = static_cast<std::uint64_t>(offset);
    if (begin > fs.size_bytes_ || size > fs.size_bytes_ - begin) {
      fuse_reply_err(request, ENOSPC);
      return;
    }
    submit(request, Operation::kWrite, offset, size,
           std::make_unique<WriteJob>(request, fs.fd_.get(), std::vector<char>(bytes, bytes + size), offset));
  }

  static void fsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
    submit(request, Operation::kWrite, 0, 0, std::make_unique<FlushJob>(request));
  }

  static void fallocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset, off_t length,
                        fuse_file_info*) {
    const AllocateJob::Place place = {
        .fd = self(request).fd_.get(), .mode = mode, .offset = offset, .length = length};
    submit(request, Operation::kWrite, offset, 0, std::make_unique<AllocateJob>(request, place));
  }

  static void submit(fuse_req_t request, Operation operation, off_t offset, std::size_t length,
                     std::unique_ptr<Job> job) {
    Request what;
    what.operation = operation;
    what.offset = static_cast<std::uint64_t>(offset);
    what.position = what.offset;
    what.length = length;
    self(request).head_->submit(std::move(what), std::move(job));
  }
};

Result<ImageFs> ImageFs::open(const std::string& path) {
  shm::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open the image " + path);
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return fail_errno(errno, "cannot look at the image " + path);
  if (st.st_size == 0) return fail(Code::kInvalidArgument, "the image " + path + " is empty");
  return ImageFs(std::move(fd), static_cast<std::uint64_t>(st.st_size));
}

fuse_lowlevel_ops ImageFs::operations() {
  fuse_lowlevel_ops operations = {};
  operations.init = Operations::init;
  operations.lookup = Operations::lookup;
  operations.getattr = Operations::getattr;
  operations.setattr = Operations::setattr;
  operations.open = Operations::open;
  operations.readdir = Operations::readdir;
  operations.read = Operations::read;
  operations.write = Operations::write;
  operations.fsync = Operations::fsync;
  operations.fallocate = Operations::fallocate;
  return operations;
}

}  // namespace nvr::slowdisk
