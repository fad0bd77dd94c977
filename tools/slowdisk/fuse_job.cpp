#include "tools/slowdisk/fuse_job.h"

#include <errno.h>
#include <unistd.h>

namespace nvr::slowdisk {

void FuseJob::answer(const Verdict& verdict) {
  const int error = verdict.error != 0 ? verdict.error : error_;
  if (error != 0) {
    fuse_reply_err(request_, error);
  } else {
    reply(request_);
  }
}

int ReadJob::work(const Verdict& verdict) {
  bytes_ = std::make_unique_for_overwrite<char[]>(verdict.length);
  while (length_ < verdict.length) {
    const ssize_t count = pread(place_.fd, bytes_.get() + length_, verdict.length - length_,
                                static_cast<off_t>(place_.offset + length_));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) break;
    length_ += static_cast<std::size_t>(count);
  }
  return 0;
}

int ReadJob::reply(fuse_req_t request) {
  return fuse_reply_buf(request, bytes_.get(), length_);
}

}  // namespace nvr::slowdisk
