#include "daemon/disk_probe.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace nvr::daemon {
namespace {

constexpr std::uint32_t kBytes = 4096;

}  // namespace

void DiskProbe::Free::operator()(std::byte* memory) const {
  std::free(memory);
}

void DiskProbe::start_if_due(std::uint64_t now_ns) {
  if (operation_ != nullptr || !recording_ || now_ns < started_ns_ + kPeriodNs || operations_.empty()) return;
  started_ns_ = now_ns;
  operation_ = &operations_.take();
  operation_->kind = Operation::Kind::kOpen;
  operation_->recording = *recording_;
  operation_->cache = CachePolicy::kDirect;
  engine_.submit(*operation_);
}

void DiskProbe::on_completion(Operation& operation, std::int64_t result, std::uint64_t now_ns) {
  if (operation.kind == Operation::Kind::kRead) {
    if (result > 0) statistics_.answered_ns.set(now_ns);
    return end(operation);
  }
  // Deleted meanwhile, or a file system that cannot be read past the cache: nothing can be said.
  if (result < 0 || operation.opened->size == 0) {
    recording_.reset();
    return end(operation);
  }
  read(operation, std::move(operation.opened));
}

void DiskProbe::read(Operation& operation, std::unique_ptr<SampleFile> file) {
  if (!buffer_) buffer_.reset(static_cast<std::byte*>(std::aligned_alloc(kBytes, kBytes)));
  file_ = std::move(file);
  file_->end = std::min<std::uint64_t>(file_->size, kBytes);
  file_->is_registered = true;  // there is no window to be registered
  operation.kind = Operation::Kind::kRead;
  operation.file = file_.get();
  operation.offset = 0;
  operation.length = static_cast<std::uint32_t>(file_->end);
  operation.slot_count = 1;
  operation.targets[0] = buffer_.get();
  engine_.submit(operation);
}

void DiskProbe::end(Operation& operation) {
  operation_ = nullptr;
  if (operation.opened) engine_.close(std::move(operation.opened));
  if (file_) engine_.close(std::move(file_));
  operations_.give_back(operation);
}

}  // namespace nvr::daemon
