// Jobs that answer a FUSE request: an error, or whatever reply() says. See Job for the threads.
#pragma once

#include <memory>

#include "tools/slowdisk/fuse_session.h"
#include "tools/slowdisk/head.h"

namespace nvr::slowdisk {

class FuseJob : public Job {
 public:
  explicit FuseJob(fuse_req_t request) : request_(request) {}

  void prepare(const Verdict& verdict) final { error_ = work(verdict); }
  void answer(const Verdict& verdict) final;

 protected:
  // What reply() will need. Returns 0 or an errno.
  [[nodiscard]] virtual int work(const Verdict& verdict) = 0;
  // Returns what the fuse_reply_ function said.
  virtual int reply(fuse_req_t request) = 0;

 private:
  fuse_req_t request_;
  int error_ = 0;
};

// Reads from a real file; ends early where that does, or where the verdict says.
class ReadJob final : public FuseJob {
 public:
  struct Place {
    int fd = -1;  // stays open until the answer
    std::uint64_t offset = 0;
  };
  ReadJob(fuse_req_t request, const Place& place) : FuseJob(request), place_(place) {}

 protected:
  [[nodiscard]] int work(const Verdict& verdict) override;
  int reply(fuse_req_t request) override;

 private:
  Place place_;
  std::unique_ptr<char[]> bytes_;
  std::size_t length_ = 0;
};

}  // namespace nvr::slowdisk
