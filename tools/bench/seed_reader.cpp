#include "tools/bench/seed_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "shm/unique_fd.h"

namespace nvr::bench {

SeedReader::~SeedReader() {
  if (!thread_.joinable()) return;
  request({.kind = SeedRequest::Kind::kStop});
  thread_.join();
}

void SeedReader::request(SeedRequest request) {
  std::call_once(started_, [this] { thread_ = std::thread(&SeedReader::run, this); });
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
  }
  requested_.notify_one();
}

SeedChunk SeedReader::take(std::size_t stream) {
  Answer& answer = answers_[stream];
  std::unique_lock lock(answer.mutex);
  answer.arrived.wait(lock, [&] { return answer.chunk.has_value(); });
  SeedChunk chunk = std::move(*answer.chunk);
  answer.chunk.reset();
  return chunk;
}

SeedRequest SeedReader::wait_for_request() {
  std::unique_lock lock(mutex_);
  requested_.wait(lock, [&] { return !requests_.empty(); });
  SeedRequest request = std::move(requests_.front());
  requests_.pop_front();
  return request;
}

void SeedReader::run() {
  for (;;) {
    const SeedRequest request = wait_for_request();
    switch (request.kind) {
      case SeedRequest::Kind::kOpenAndRead:
        if (const int error = map(request); error != 0)
          answer(request.stream, {.sys_errno = error});
        else
          answer(request.stream, read_next(request.stream));
        break;
      case SeedRequest::Kind::kRead:
        answer(request.stream, read_next(request.stream));
        break;
      case SeedRequest::Kind::kClose:
        unmap(request.stream);
        break;
      case SeedRequest::Kind::kStop:
        for (std::size_t stream = 0; stream < kMaxStreams; ++stream) unmap(stream);
        return;
    }
  }
}

int SeedReader::map(const SeedRequest& request) {
  const shm::UniqueFd fd(open(request.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno;
  void* const data =
      mmap(nullptr, request.length, PROT_READ, MAP_SHARED, fd.get(), static_cast<off_t>(request.offset));
  if (data == MAP_FAILED) return errno;
  madvise(data, request.length, MADV_SEQUENTIAL);
  ranges_[request.stream] = {.data = static_cast<std::byte*>(data), .length = request.length};
  return 0;
}

void SeedReader::unmap(std::size_t stream) {
  MappedRange& range = ranges_[stream];
  if (range.data != nullptr) munmap(range.data, range.length);
  range = {};
}

SeedChunk SeedReader::read_next(std::size_t stream) {
  MappedRange& range = ranges_[stream];
  SeedChunk chunk;
  chunk.length = std::min<std::uint64_t>(kChunkBytes, range.length - range.done);
  chunk.memory = std::make_unique_for_overwrite<std::byte[]>(chunk.length);
  std::memcpy(chunk.memory.get(), range.data + range.done, chunk.length);
  range.done += chunk.length;
  return chunk;
}

void SeedReader::answer(std::size_t stream, SeedChunk chunk) {
  Answer& answer = answers_[stream];
  {
    const std::lock_guard lock(answer.mutex);
    answer.chunk = std::move(chunk);
  }
  answer.arrived.notify_one();
}

}  // namespace nvr::bench
