// The C interface where the heap has nothing to give: no bytes and no error get lost unseen.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <new>

#include "nvr/nvr_client.h"
#include "tests/support/streams.h"

namespace {
thread_local int allocations_left = -1;  // -1: as many as there are
}  // namespace

// This program's own, all forms of them, so that a sanitizer finds none of its own beside them: they fail
// when the thread's allowance is used up.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  if (allocations_left == 0) return nullptr;
  if (allocations_left > 0) --allocations_left;
  return std::malloc(size == 0 ? 1 : size);
}
void* operator new(std::size_t size) {
  if (void* const p = operator new(size, std::nothrow)) return p;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) {
  return operator new(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return operator new(size, std::nothrow);
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
void operator delete(void* p, const std::nothrow_t&) noexcept {
  std::free(p);
}
void operator delete[](void* p) noexcept {
  std::free(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  std::free(p);
}
void operator delete[](void* p, const std::nothrow_t&) noexcept {
  std::free(p);
}

namespace nvr::test {
namespace {

struct Answer {
  nvr_next_result result = NVR_END;
  nvr_code code = NVR_OK;
  std::uint64_t offset = 0;
  std::size_t size = 0;
};

// nvr_next with `allowance` allocations.
Answer next_with(nvr_stream* stream, int allowance, std::int64_t timeout_ms = NVR_FOREVER) {
  nvr_chunk* chunk = nullptr;
  nvr_error* error = nullptr;
  allocations_left = allowance;
  Answer answer{.result = nvr_next(stream, timeout_ms, &chunk, &error)};
  allocations_left = -1;
  if (chunk != nullptr) {
    answer.offset = nvr_chunk_offset(chunk);
    answer.size = nvr_chunk_size(chunk);
  }
  if (error != nullptr) answer.code = nvr_error_code(error);
  nvr_chunk_release(chunk);
  nvr_error_free(error);
  return answer;
}

TEST_CASE("C: a chunk for which there is no memory comes with the next call") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunkBytes + 1);
  const DaemonProcess daemon = site.start();
  nvr_client* const client = nvr_connect(daemon.socket().c_str(), nullptr, nullptr);
  REQUIRE(client != nullptr);
  const nvr_request request = {.size = sizeof(nvr_request),
                               .recording = file.id.composite(),
                               .begin = 0,
                               .end = NVR_TO_END,
                               .priority = NVR_PLAYBACK,
                               .cache = NVR_CACHE_NORMAL,
                               .follow_ms = 0};
  nvr_stream* const stream = nvr_open(client, &request, nullptr);
  REQUIRE(stream != nullptr);
  std::uint64_t offset = 0;
  int failures = 0;
  for (int i = 0;; ++i) {
    const Answer answer = next_with(stream, i % 3 == 0 ? -1 : i % 3 - 1);
    if (answer.result == NVR_END) break;
    if (answer.result == NVR_FAILED) {
      CHECK(answer.code == NVR_RESOURCE_EXHAUSTED);
      ++failures;
      continue;
    }
    REQUIRE(answer.offset == offset);
    offset += answer.size;
  }
  CHECK(offset == file.size);
  CHECK(failures > 0);
  nvr_stream_free(stream);
  nvr_client_free(client);
}

TEST_CASE("C: an error for which there is no memory does not become a good end") {
  const Site site;
  const DaemonProcess daemon = site.start();
  nvr_client* const client = nvr_connect(daemon.socket().c_str(), nullptr, nullptr);
  REQUIRE(client != nullptr);
  const nvr_request request = {.size = sizeof(nvr_request),
                               .recording = nvr_recording(7, 7),
                               .begin = 0,
                               .end = NVR_TO_END,
                               .priority = NVR_PLAYBACK,
                               .cache = NVR_CACHE_NORMAL,
                               .follow_ms = 0};
  int told = 0;
  for (int allowance = 0; allowance < 40; ++allowance) {
    CAPTURE(allowance);
    nvr_stream* const stream = nvr_open(client, &request, nullptr);
    REQUIRE(stream != nullptr);
    Answer answer = next_with(stream, allowance);
    REQUIRE(answer.result == NVR_FAILED);
    if (answer.code == NVR_RESOURCE_EXHAUSTED) answer = next_with(stream, -1);  // it goes on
    CHECK(answer.result == NVR_FAILED);
    CHECK((answer.code == NVR_NOT_FOUND || answer.code == NVR_ABORTED));
    told += answer.code == NVR_NOT_FOUND ? 1 : 0;
    CHECK(next_with(stream, -1).result == NVR_END);
    nvr_stream_free(stream);
  }
  CHECK(told > 0);
  nvr_client_free(client);
}

TEST_CASE("C: a stream that has no memory to say that nothing arrived goes on") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, kChunkBytes);
  const DaemonProcess daemon = site.start();
  nvr_client* const client = nvr_connect(daemon.socket().c_str(), nullptr, nullptr);
  REQUIRE(client != nullptr);
  const nvr_request request = {.size = sizeof(nvr_request),
                               .recording = file.id.composite(),
                               .begin = 0,
                               .end = NVR_TO_END,
                               .priority = NVR_PLAYBACK,
                               .cache = NVR_CACHE_NORMAL,
                               .follow_ms = 0};
  daemon.stop();  // so that there is nothing to say but that there is nothing
  nvr_stream* const stream = nvr_open(client, &request, nullptr);
  REQUIRE(stream != nullptr);
  Answer answer = next_with(stream, 0, 0);
  CHECK(answer.code == NVR_RESOURCE_EXHAUSTED);  // nothing was lost
  answer = next_with(stream, -1, 0);
  CHECK(answer.code == NVR_DEADLINE_EXCEEDED);
  // What is handed out is there, and what is to be said is not.
  answer = next_with(stream, 1, 0);
  CHECK(answer.code == NVR_RESOURCE_EXHAUSTED);
  CHECK(next_with(stream, -1, 0).code == NVR_DEADLINE_EXCEEDED);
  daemon.go_on();
  CHECK(next_with(stream, -1).size == kChunkBytes);
  CHECK(next_with(stream, -1).result == NVR_END);
  nvr_stream_free(stream);
  nvr_client_free(client);
}

TEST_CASE("C: options without their size are refused, not ignored") {
  const Site site;
  const DaemonProcess daemon = site.start();
  nvr_options options = {};
  options.streams = 2;
  nvr_error* error = nullptr;
  CHECK(nvr_connect(daemon.socket().c_str(), &options, &error) == nullptr);
  REQUIRE(error != nullptr);
  CHECK(nvr_error_code(error) == NVR_INVALID_ARGUMENT);
  nvr_error_free(error);
  options.size = sizeof(options);
  nvr_client* const client = nvr_connect(daemon.socket().c_str(), &options, nullptr);
  CHECK(client != nullptr);
  nvr_client_free(client);
}

TEST_CASE("C: with resume_ms a stream goes on under the next daemon") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 30 * kChunkBytes + 1);
  std::optional<DaemonProcess> daemon(site.start());
  nvr_options options = {};
  options.size = sizeof(options);
  options.streams = 1;
  options.slots_per_stream = 4;
  options.resume_ms = NVR_FOREVER;
  nvr_client* const client = nvr_connect(daemon->socket().c_str(), &options, nullptr);
  REQUIRE(client != nullptr);
  const nvr_request request = {.size = sizeof(nvr_request),
                               .recording = nvr_recording(1, 1),
                               .begin = 0,
                               .end = NVR_TO_END,
                               .priority = NVR_PLAYBACK,
                               .cache = NVR_CACHE_NORMAL,
                               .follow_ms = 0};
  nvr_stream* const stream = nvr_open(client, &request, nullptr);
  REQUIRE(stream != nullptr);
  std::uint64_t offset = 0;
  nvr_chunk* chunk = nullptr;
  nvr_error* error = nullptr;
  while (nvr_next(stream, NVR_FOREVER, &chunk, &error) == NVR_CHUNK) {
    CHECK(nvr_chunk_offset(chunk) == offset);
    const auto* const data = static_cast<const std::byte*>(nvr_chunk_data(chunk));
    CHECK(file.difference(offset, {data, nvr_chunk_size(chunk)}) == "");
    offset += nvr_chunk_size(chunk);
    nvr_chunk_release(chunk);
    if (offset == 2 * kChunkBytes) {
      daemon->kill();
      daemon.emplace(site.start());
    }
  }
  CHECK(error == nullptr);
  CHECK(offset == file.size);
  nvr_stream_free(stream);
  nvr_client_free(client);
}

}  // namespace
}  // namespace nvr::test
