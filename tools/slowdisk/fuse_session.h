// A mounted FUSE file system: mounted when created, unmounted when it goes. Requests are taken in as fast as
// they come, in the thread that calls run(); whoever takes long for the answer gives it from another one.
#pragma once

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include <memory>
#include <string>

#include "nvr/error.h"

namespace nvr::slowdisk {

// Of one read: as much as the kernel asks for at once.
inline constexpr unsigned kMaxRead_bytes = 1 << 20;

// A file system's init operation: many requests at once, each of them large.
void set_up_connection(fuse_conn_info& connection);

class FuseSession {
 public:
  struct Options {
    std::string mountpoint;
    std::string source;  // shown by `mount`
    bool read_only = false;
  };
  // `user_data` must outlive the session.
  static Result<FuseSession> create(const fuse_lowlevel_ops& operations, void* user_data,
                                    const Options& options);

  // Until unmounted by somebody, or `stop_fd` becomes readable.
  void run(int stop_fd);

 private:
  struct End {
    void operator()(fuse_session* session) const;
  };
  explicit FuseSession(std::unique_ptr<fuse_session, End> session) : session_(std::move(session)) {}
  std::unique_ptr<fuse_session, End> session_;
};

}  // namespace nvr::slowdisk
