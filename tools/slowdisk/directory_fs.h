// A directory served as a disk, read-only: its files under their own names, each of them at a place of its
// own on the modelled medium. Names are looked up, files opened and directories listed at no cost but not
// past a stall.
//
// Threads: the operations run in the session's thread; the answers come from the head's.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "shm/unique_fd.h"
#include "tools/slowdisk/fuse_session.h"
#include "tools/slowdisk/head.h"

namespace nvr::slowdisk {

// The names behind the inode numbers that the kernel knows. Any thread.
class Nodes {
 public:
  Nodes();
  // Relative to the directory served, "" for itself; nothing for an unknown inode.
  [[nodiscard]] std::optional<std::string> path_of(fuse_ino_t inode) const;
  // The kernel is told of this inode once more.
  fuse_ino_t remember(const std::string& path);
  // The kernel has forgotten it so many times.
  void forget(fuse_ino_t inode, std::uint64_t times);

 private:
  struct Node {
    std::string path;
    std::uint64_t known = 0;
  };
  mutable std::mutex mutex_;
  std::unordered_map<fuse_ino_t, Node> nodes_;
  std::unordered_map<std::string, fuse_ino_t> inodes_;
  fuse_ino_t last_ = FUSE_ROOT_ID;
};

// What the kernel holds open, a file or a listing. Those that it has not released when the session ends go
// with it. Any thread.
struct Handle {
  virtual ~Handle() = default;
};
class Handles {
 public:
  // The handle's number for FUSE; valid until release(). Call it before the kernel is told of the number.
  std::uint64_t keep(std::unique_ptr<Handle> handle);
  void release(std::uint64_t number);

 private:
  std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Handle>> handles_;
};

class DirectoryFs {
 public:
  struct Options {
    std::string path;
    std::uint64_t capacity_bytes = 0;  // of the medium that the files lie on
    std::uint64_t seed = 0;            // of their places
    bool direct_io = false;            // every read comes here, nothing is cached
    bool forget_at_open = false;       // an open drops what is cached of the file
  };
  static Result<DirectoryFs> open(Options options);

  void attach(Head& head) { head_ = &head; }
  [[nodiscard]] static fuse_lowlevel_ops operations();

  // Where a file begins on the medium: anywhere, but always the same.
  [[nodiscard]] static std::uint64_t place_of(const std::string& path, const Options& options);

 private:
  DirectoryFs(shm::UniqueFd root, Options options);
  struct Operations;
  class LookupJob;
  class OpenJob;
  class ListJob;

  // Of what the kernel asks about, as it is to see it. Returns 0 or an errno.
  [[nodiscard]] int look_at(const std::string& path, struct stat& st) const;

  shm::UniqueFd root_;
  Options options_;
  std::unique_ptr<Nodes> nodes_;
  std::unique_ptr<Handles> handles_;
  Head* head_ = nullptr;
};

}  // namespace nvr::slowdisk
