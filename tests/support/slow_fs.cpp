// nvr-test-slow-fs BACKING MOUNTPOINT: a FUSE file system that shows the directory BACKING, read-only, and
// does with its files what it is told on stdin, while they are in use:
//
//   stall-open NAME          opens of NAME hang until "release"
//   stall-read NAME          reads of NAME hang until "release"
//   fail NAME BEGIN END      reads of NAME that touch [BEGIN, END) fail with EIO
//   release                  nothing hangs and nothing fails any more
//   await NAME               answered when an open or a read of NAME hangs
//   latency MICROSECONDS     every read takes that long, however many there are at a time; 0 at the start
//
// Each line is answered with "ok" on stdout once it holds; the first line of all is "ready". A request that
// hangs is not interrupted by anything, as on a disk. It ends when the file system is unmounted.
//
// Threads: FUSE's, one per request that is under way, and one that reads stdin. `Orders` is all they share.
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <iostream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>

namespace nvr::test {
namespace {

constexpr unsigned kMaxRequests = 1000;  // that can hang at a time
constexpr std::chrono::seconds kAwaitAtMost{20};

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

class Orders {
 public:
  // False when the line says nothing that is known, or what it waits for does not come.
  bool follow(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    std::string name;
    words >> verb >> name;
    if (verb == "await") return await(name);
    const std::scoped_lock lock(mutex_);
    if (verb == "stall-open") {
      stalled_opens_.insert(name);
    } else if (verb == "stall-read") {
      stalled_reads_.insert(name);
    } else if (verb == "fail") {
      Range range;
      if (!(words >> range.begin >> range.end)) return false;
      failures_[name] = range;
    } else if (verb == "latency") {
      latency_ = std::chrono::microseconds(std::stoul(name));
    } else if (verb == "release") {
      stalled_opens_.clear();
      stalled_reads_.clear();
      failures_.clear();
      released_.notify_all();
    } else {
      return false;
    }
    return true;
  }

  void wait_for_open(const std::string& name) {
    std::unique_lock lock(mutex_);
    hang_while_in(stalled_opens_, name, lock);
  }
  // False when the read has to fail.
  [[nodiscard]] bool wait_for_read(const std::string& name, std::uint64_t offset, std::uint64_t length) {
    std::unique_lock lock(mutex_);
    hang_while_in(stalled_reads_, name, lock);
    const auto failure = failures_.find(name);
    const bool is_good = failure == failures_.end() || offset >= failure->second.end ||
                         offset + length <= failure->second.begin;
    const auto latency = latency_;
    lock.unlock();
    std::this_thread::sleep_for(latency);
    return is_good;
  }

 private:
  void hang_while_in(const std::set<std::string>& stalled, const std::string& name,
                     std::unique_lock<std::mutex>& lock) {
    if (!stalled.contains(name)) return;
    ++hanging_[name];
    hung_.notify_all();
    released_.wait(lock, [&] { return !stalled.contains(name); });
    --hanging_[name];
  }
  bool await(const std::string& name) {
    std::unique_lock lock(mutex_);
    return hung_.wait_for(lock, kAwaitAtMost, [&] { return hanging_[name] > 0; });
  }

  std::mutex mutex_;
  std::condition_variable released_;
  std::condition_variable hung_;
  std::map<std::string, unsigned> hanging_;  // requests
  std::chrono::microseconds latency_{0};
  std::set<std::string> stalled_opens_;
  std::set<std::string> stalled_reads_;
  std::map<std::string, Range> failures_;
};

struct FileSystem {
  std::string backing;
  Orders orders;
};

FileSystem& file_system() {
  return *static_cast<FileSystem*>(fuse_get_context()->private_data);
}
std::string behind(const char* path) {
  return file_system().backing + path;
}

// Readahead may have as much under way as there are files that hang, or they would slow down the others.
void* initialize(fuse_conn_info* connection, fuse_config*) {
  connection->max_background = kMaxRequests;
  connection->congestion_threshold = kMaxRequests;
  return &file_system();
}

int get_attributes(const char* path, struct stat* st, fuse_file_info*) {
  return lstat(behind(path).c_str(), st) == 0 ? 0 : -errno;
}

int open_file(const char* path, fuse_file_info* info) {
  file_system().orders.wait_for_open(path + 1);
  const int fd = open(behind(path).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  info->fh = static_cast<std::uint64_t>(fd);
  return 0;
}

int read_file(const char* path, char* target, std::size_t length, off_t offset, fuse_file_info* info) {
  if (!file_system().orders.wait_for_read(path + 1, static_cast<std::uint64_t>(offset), length)) return -EIO;
  const ssize_t count = pread(static_cast<int>(info->fh), target, length, offset);
  return count < 0 ? -errno : static_cast<int>(count);
}

int release_file(const char*, fuse_file_info* info) {
  close(static_cast<int>(info->fh));
  return 0;
}

int read_directory(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
                   fuse_readdir_flags) {
  DIR* const directory = opendir(behind(path).c_str());
  if (directory == nullptr) return -errno;
  while (const dirent* const entry = readdir(directory))
    fill(buffer, entry->d_name, nullptr, 0, static_cast<fuse_fill_dir_flags>(0));
  closedir(directory);
  return 0;
}

// One write, so that whoever reads the pipe gets the line whole.
void answer(const std::string& text) {
  const std::string line = text + '\n';
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) _exit(1);
}

void follow_stdin(Orders& orders) {
  for (std::string line; std::getline(std::cin, line);)
    answer(orders.follow(line) ? "ok" : "not done: " + line);
}

int run(const std::string& backing, const char* mountpoint) {
  FileSystem shown{.backing = backing, .orders = {}};
  fuse_operations operations = {};
  operations.init = initialize;
  operations.getattr = get_attributes;
  operations.open = open_file;
  operations.read = read_file;
  operations.release = release_file;
  operations.readdir = read_directory;
  char program[] = "nvr-test-slow-fs";
  char option[] = "-o";
  char options[] = "allow_other,default_permissions,ro,fsname=nvr-test-slow-fs";
  char* argv[] = {program, option, options, nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(3, argv);
  fuse* const session = fuse_new(&arguments, &operations, sizeof(operations), &shown);
  if (session == nullptr || fuse_mount(session, mountpoint) != 0) return 1;
  answer("ready");
  std::thread([&] { follow_stdin(shown.orders); }).detach();
  fuse_loop_config* const config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_max_threads(config, kMaxRequests);
  fuse_loop_mt(session, config);
  _exit(0);  // unmounted; the thread at stdin may still wait there
}

}  // namespace
}  // namespace nvr::test

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: nvr-test-slow-fs BACKING MOUNTPOINT\n";
    return 2;
  }
  return nvr::test::run(argv[1], argv[2]);
}
