#include "tools/slowdisk/directory_fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/slowdisk/fuse_job.h"

namespace nvr::slowdisk {
namespace {

// Nothing is remembered about names and sizes, so that "truncate" shows and lookups meet the disk.
constexpr double kNotAtAll_s = 0;
constexpr std::uint64_t kAlignment_bytes = 4096;

// An open file: what its reads need to know.
struct OpenFile : Handle {
  shm::UniqueFd fd;
  std::string path;
  std::uint64_t place = 0;
};

struct Listing : Handle {
  struct Entry {
    std::string name;
    struct stat st = {};
  };
  std::vector<Entry> entries;
};

template <class T>
T& handle(const fuse_file_info& info) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): FUSE keeps it as a number
  return static_cast<T&>(*reinterpret_cast<Handle*>(info.fh));
}

std::string join(const std::string& directory, std::string_view name) {
  return directory.empty() ? std::string(name) : directory + "/" + std::string(name);
}
// "" is the directory itself.
const char* named(const std::string& path) {
  return path.empty() ? "." : path.c_str();
}

}  // namespace

Nodes::Nodes() {
  nodes_[FUSE_ROOT_ID] = {.path = "", .known = 1};
  inodes_[""] = FUSE_ROOT_ID;
}

std::optional<std::string> Nodes::path_of(fuse_ino_t inode) const {
  const std::scoped_lock lock(mutex_);
  const auto node = nodes_.find(inode);
  if (node == nodes_.end()) return std::nullopt;
  return node->second.path;
}

fuse_ino_t Nodes::remember(const std::string& path) {
  const std::scoped_lock lock(mutex_);
  const auto [entry, is_new] = inodes_.try_emplace(path, last_ + 1);
  if (is_new) nodes_[++last_] = {.path = path, .known = 0};
  ++nodes_[entry->second].known;
  return entry->second;
}

void Nodes::forget(fuse_ino_t inode, std::uint64_t times) {
  const std::scoped_lock lock(mutex_);
  const auto node = nodes_.find(inode);
  if (node == nodes_.end() || inode == FUSE_ROOT_ID) return;
  node->second.known -= std::min(node->second.known, times);
  if (node->second.known > 0) return;
  inodes_.erase(node->second.path);
  nodes_.erase(node);
}

std::uint64_t Handles::keep(std::unique_ptr<Handle> handle) {
  const std::scoped_lock lock(mutex_);
  const auto number = reinterpret_cast<std::uint64_t>(handle.get());
  handles_.emplace(number, std::move(handle));
  return number;
}

void Handles::release(std::uint64_t number) {
  const std::scoped_lock lock(mutex_);
  handles_.erase(number);
}

class DirectoryFs::LookupJob final : public FuseJob {
 public:
  LookupJob(fuse_req_t request, DirectoryFs& fs, std::string path)
      : FuseJob(request), fs_(fs), path_(std::move(path)) {}

 protected:
  [[nodiscard]] int work(const Verdict&) override { return fs_.look_at(path_, entry_.attr); }
  int reply(fuse_req_t request) override {
    entry_.ino = fs_.nodes_->remember(path_);
    entry_.attr.st_ino = entry_.ino;
    entry_.attr_timeout = kNotAtAll_s;
    entry_.entry_timeout = kNotAtAll_s;
    const int result = fuse_reply_entry(request, &entry_);
    if (result != 0) fs_.nodes_->forget(entry_.ino, 1);
    return result;
  }

 private:
  DirectoryFs& fs_;
  std::string path_;
  fuse_entry_param entry_ = {};
};

class DirectoryFs::OpenJob final : public FuseJob {
 public:
  OpenJob(fuse_req_t request, DirectoryFs& fs, std::string path, const fuse_file_info& info)
      : FuseJob(request), fs_(fs), path_(std::move(path)), info_(info) {}

 protected:
  [[nodiscard]] int work(const Verdict&) override {
    file_ = std::make_unique<OpenFile>();
    file_->fd.reset(openat(fs_.root_.get(), named(path_), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file_->fd) return errno;
    file_->path = path_;
    file_->place = place_of(path_, fs_.options_);
    return 0;
  }
  int reply(fuse_req_t request) override {
    info_.fh = fs_.handles_->keep(std::move(file_));
    info_.direct_io = fs_.options_.direct_io;
    info_.keep_cache = !fs_.options_.forget_at_open;  // without it an open waits for the reads under way
    const int result = fuse_reply_open(request, &info_);
    if (result != 0) fs_.handles_->release(info_.fh);
    return result;
  }

 private:
  DirectoryFs& fs_;
  std::string path_;
  fuse_file_info info_;
  std::unique_ptr<OpenFile> file_;
};

class DirectoryFs::ListJob final : public FuseJob {
 public:
  ListJob(fuse_req_t request, DirectoryFs& fs, std::string path, const fuse_file_info& info)
      : FuseJob(request), fs_(fs), path_(std::move(path)), info_(info) {}

 protected:
  [[nodiscard]] int work(const Verdict&) override {
    const int fd = openat(fs_.root_.get(), named(path_), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR* const directory = fd < 0 ? nullptr : fdopendir(fd);
    if (directory == nullptr) return errno;
    listing_ = std::make_unique<Listing>();
    while (const dirent* const entry =
               readdir(directory)) {  // NOLINT(concurrency-mt-unsafe): a stream of its own
      struct stat st = {};
      st.st_ino = entry->d_ino;
      st.st_mode = static_cast<mode_t>(DTTOIF(entry->d_type));
      listing_->entries.push_back({.name = entry->d_name, .st = st});
    }
    closedir(directory);
    return 0;
  }
  int reply(fuse_req_t request) override {
    info_.fh = fs_.handles_->keep(std::move(listing_));
    const int result = fuse_reply_open(request, &info_);
    if (result != 0) fs_.handles_->release(info_.fh);
    return result;
  }

 private:
  DirectoryFs& fs_;
  std::string path_;
  fuse_file_info info_;
  std::unique_ptr<Listing> listing_;
};

struct DirectoryFs::Operations {
  static DirectoryFs& self(fuse_req_t request) {
    return *static_cast<DirectoryFs*>(fuse_req_userdata(request));
  }

  static void init(void*, fuse_conn_info* connection) { set_up_connection(*connection); }

  // The file's path, or nothing after the request was refused.
  static std::optional<std::string> path_of(fuse_req_t request, fuse_ino_t inode) {
    auto path = self(request).nodes_->path_of(inode);
    if (!path) fuse_reply_err(request, ESTALE);
    return path;
  }

  static void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
    const auto directory = path_of(request, parent);
    if (!directory) return;
    // A look-up is an operation on the directory: what stalls one file's opens must not stall it, since the
    // kernel looks up one name of a directory at a time.
    submit_open(request, *directory,
                std::make_unique<LookupJob>(request, self(request), join(*directory, name)));
  }

  static void forget(fuse_req_t request, fuse_ino_t inode, std::uint64_t times) {
    self(request).nodes_->forget(inode, times);
    fuse_reply_none(request);
  }

  static void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
    const auto path = path_of(request, inode);
    if (!path) return;
    struct stat st = {};
    const int error = self(request).look_at(*path, st);
    st.st_ino = inode;
    error != 0 ? fuse_reply_err(request, error) : fuse_reply_attr(request, &st, kNotAtAll_s);
  }

  static void readlink(fuse_req_t request, fuse_ino_t inode) {
    const auto path = path_of(request, inode);
    if (!path) return;
    char target[PATH_MAX];
    const ssize_t length = readlinkat(self(request).root_.get(), path->c_str(), target, sizeof(target) - 1);
    if (length < 0) {
      fuse_reply_err(request, errno);
      return;
    }
    target[length] = '\0';
    fuse_reply_readlink(request, target);
  }

  static void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    const auto path = path_of(request, inode);
    if (!path) return;
    if ((info->flags & O_ACCMODE) != O_RDONLY) {
      fuse_reply_err(request, EROFS);
      return;
    }
    submit_open(request, *path, std::make_unique<OpenJob>(request, self(request), *path, *info));
  }

  static void read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
    const auto& file = handle<OpenFile>(*info);
    Request what;
    what.operation = Operation::kRead;
    what.file = file.path;
    what.offset = static_cast<std::uint64_t>(offset);
    what.length = size;
    what.position = file.place + what.offset;
    const ReadJob::Place place = {.fd = file.fd.get(), .offset = what.offset};
    self(request).head_->submit(std::move(what), std::make_unique<ReadJob>(request, place));
  }

  static void release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    self(request).handles_->release(info->fh);
    fuse_reply_err(request, 0);
  }

  static void opendir(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
    const auto path = path_of(request, inode);
    if (!path) return;
    submit_open(request, *path, std::make_unique<ListJob>(request, self(request), *path, *info));
  }

  static void readdir(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
    const auto& entries = handle<Listing>(*info).entries;
    std::vector<char> buffer(size);
    std::size_t length = 0;
    for (auto index = static_cast<std::size_t>(offset); index < entries.size(); ++index) {
      const Listing::Entry& entry = entries[index];
      const std::size_t added =
          fuse_add_direntry(request, buffer.data() + length, size - length, entry.name.c_str(), &entry.st,
                            static_cast<off_t>(index + 1));
      if (added > size - length) break;
      length += added;
    }
    fuse_reply_buf(request, buffer.data(), length);
  }

  static void releasedir(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    self(request).handles_->release(info->fh);
    fuse_reply_err(request, 0);
  }

  static void submit_open(fuse_req_t request, const std::string& path, std::unique_ptr<Job> job) {
    Request what;
    what.operation = Operation::kOpen;
    what.file = path;
    self(request).head_->submit(std::move(what), std::move(job));
  }
};

DirectoryFs::DirectoryFs(shm::UniqueFd root, Options options)
    : root_(std::move(root)),
      options_(std::move(options)),
      nodes_(std::make_unique<Nodes>()),
      handles_(std::make_unique<Handles>()) {}

Result<DirectoryFs> DirectoryFs::open(Options options) {
  shm::UniqueFd root(::open(options.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail_errno(errno, "cannot open the directory " + options.path);
  return DirectoryFs(std::move(root), std::move(options));
}

int DirectoryFs::look_at(const std::string& path, struct stat& st) const {
  if (fstatat(root_.get(), named(path), &st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  if (S_ISREG(st.st_mode))
    st.st_size = static_cast<off_t>(head_->size_of(path, static_cast<std::uint64_t>(st.st_size)));
  return 0;
}

// FNV-1a over the name: the same in every run with the same seed, whatever was opened before.
std::uint64_t DirectoryFs::place_of(const std::string& path, const Options& options) {
  std::uint64_t hash = 0xcbf29ce484222325 ^ options.seed;
  for (const char c : path) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  hash ^= hash >> 32;
  return hash % std::max<std::uint64_t>(options.capacity_bytes, 1) / kAlignment_bytes * kAlignment_bytes;
}

fuse_lowlevel_ops DirectoryFs::operations() {
  fuse_lowlevel_ops operations = {};
  operations.init = Operations::init;
  operations.lookup = Operations::lookup;
  operations.forget = Operations::forget;
  operations.getattr = Operations::getattr;
  operations.readlink = Operations::readlink;
  operations.open = Operations::open;
  operations.read = Operations::read;
  operations.release = Operations::release;
  operations.opendir = Operations::opendir;
  operations.readdir = Operations::readdir;
  operations.releasedir = Operations::releasedir;
  return operations;
}

}  // namespace nvr::slowdisk
