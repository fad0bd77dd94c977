// The C interface over the C++ library. Nothing is decided here; no exception gets out.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "nvr/client.h"
#include "nvr/nvr_client.h"

struct nvr_error {
  nvr::Error error;
};
struct nvr_client {
  nvr::Client client;
};
struct nvr_chunk {
  std::optional<nvr::Chunk> chunk;
};
struct nvr_stream {
  nvr::Stream stream;
  // What nvr_next will hand out. Allocated before the stream is asked: a chunk or an error that was taken and
  // then found no memory would be missing without a trace. What finds none within the stream is its own
  // affair: it goes on, or says with the next call that it does not.
  std::unique_ptr<nvr_chunk> next_chunk;
  std::unique_ptr<nvr_error> next_error;
};

namespace {

// The error that says that memory is out; nvr_error_free leaves it alone. Its text is short enough to be part
// of the object, so this allocates nothing, not even the first time.
nvr_error* out_of_memory() noexcept {
  static nvr_error error{{.code = nvr::Code::kResourceExhausted, .message = "out of memory"}};
  return &error;
}

void report(nvr_error** error, nvr::Error what) noexcept {
  if (error == nullptr) return;
  try {
    *error = new nvr_error{std::move(what)};
  } catch (const std::bad_alloc&) {
    *error = out_of_memory();
  }
}

// Runs `body`; an exception becomes an error and `failed`.
template <class T, class Body>
T guard(nvr_error** error, T failed, Body&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    if (error != nullptr) *error = out_of_memory();
  } catch (const std::exception& e) {
    try {
      report(error, {.code = nvr::Code::kInternal, .message = e.what()});
    } catch (const std::bad_alloc&) {
      if (error != nullptr) *error = out_of_memory();
    }
  }
  return failed;
}

nvr::Deadline deadline_of(std::int64_t timeout_ms) {
  const auto now = nvr::Clock::now();
  const auto longest = std::chrono::duration_cast<std::chrono::milliseconds>(nvr::Deadline::max() - now);
  if (timeout_ms < 0 || timeout_ms >= longest.count()) return nvr::Deadline::max();
  return now + std::chrono::milliseconds(timeout_ms);
}

// NVR_FOREVER is for ever.
std::chrono::milliseconds milliseconds_of(std::int64_t ms) {
  return ms < 0 ? std::chrono::milliseconds::max() : std::chrono::milliseconds(ms);
}

int give_info(const nvr::Result<nvr::RecordingInfo>& result, nvr_info* info, nvr_error** error) {
  if (!result) {
    report(error, result.error());
    return -1;
  }
  *info = {
      .device = result->device, .inode = result->inode, .size = result->size, .mtime_ns = result->mtime_ns};
  return 0;
}

int give_file(const nvr::Result<nvr::RecordingInfo>& result, nvr_file* file, nvr_error** error) {
  if (!result) {
    report(error, result.error());
    return -1;
  }
  const nvr_file found = {.struct_size = file->struct_size,
                          .device = result->device,
                          .inode = result->inode,
                          .size = result->size,
                          .mtime_ns = result->mtime_ns,
                          .birth_ns = result->birth_ns};
  std::memcpy(file, &found, std::min(file->struct_size, sizeof(found)));
  return 0;
}

constexpr std::size_t kMostBytes = 4096;  // of a caller's struct, in any version

// A caller of an older version knows fewer fields. One of a newer version may know more: those must be zero,
// for a zero stands for the default, and what else they ask for is not known here.
template <class T>
bool take(const T* from, T& given, const char* name, nvr_error** error) {
  if (from->size < sizeof(from->size) || from->size > kMostBytes) {
    report(error, {.code = nvr::Code::kInvalidArgument, .message = std::string(name) + ".size is not set"});
    return false;
  }
  const auto* const bytes = reinterpret_cast<const unsigned char*>(from);
  const auto is_set = [](unsigned char byte) { return byte != 0; };
  if (from->size > sizeof(given) && std::any_of(bytes + sizeof(given), bytes + from->size, is_set)) {
    report(error, {.code = nvr::Code::kInvalidArgument,
                   .message = std::string(name) + " has fields set that only a newer library knows"});
    return false;
  }
  std::memcpy(&given, from, std::min(from->size, sizeof(given)));
  return true;
}

bool has_size(const nvr_file* file, nvr_error** error) {
  if (file->struct_size >= sizeof(file->struct_size)) return true;
  report(error, {.code = nvr::Code::kInvalidArgument, .message = "nvr_file.struct_size is not set"});
  return false;
}

}  // namespace

extern "C" {

uint32_t nvr_abi_version(void) {
  return NVR_ABI_VERSION;
}

nvr_code nvr_error_code(const nvr_error* error) {
  return static_cast<nvr_code>(error->error.code);
}
int nvr_error_errno(const nvr_error* error) {
  return error->error.sys_errno;
}
uint64_t nvr_error_offset(const nvr_error* error) {
  return error->error.offset;
}
const char* nvr_error_message(const nvr_error* error) {
  return error->error.message.c_str();
}
const char* nvr_code_name(nvr_code code) {
  return nvr::to_string(static_cast<nvr::Code>(code)).data();
}
void nvr_error_free(nvr_error* error) {
  if (error != out_of_memory()) delete error;
}

nvr_client* nvr_connect(const char* socket_path, const nvr_options* options, nvr_error** error) {
  return guard(error, static_cast<nvr_client*>(nullptr), [&]() -> nvr_client* {
    nvr_options given = {};
    if (options != nullptr && !take(options, given, "nvr_options", error)) return nullptr;
    if (given.reserved != 0) {
      report(error, {.code = nvr::Code::kInvalidArgument, .message = "nvr_options.reserved is not 0"});
      return nullptr;
    }
    nvr::ConnectOptions wanted;
    if (given.streams != 0) wanted.streams = given.streams;
    if (given.slots_per_stream != 0) wanted.slots_per_stream = given.slots_per_stream;
    if (given.timeout_ms != 0) wanted.timeout = std::chrono::milliseconds(given.timeout_ms);
    wanted.resume = milliseconds_of(given.resume_ms);
    auto client = nvr::Client::connect(socket_path, wanted);
    if (client) return new nvr_client{std::move(*client)};
    report(error, client.error());
    return nullptr;
  });
}
void nvr_client_free(nvr_client* client) {
  delete client;
}

int nvr_native_handle(const nvr_client* client) {
  return client->client.native_handle();
}

int nvr_dispatch(nvr_client* client, nvr_error** error) {
  return guard(error, -1, [&] {
    const auto dispatched = client->client.dispatch();
    if (!dispatched) report(error, dispatched.error());
    return dispatched ? 0 : -1;
  });
}

void nvr_get_disk_status(const nvr_client* client, nvr_disk_status* status) {
  const nvr::DiskStatus disk = client->client.disk_status();
  *status = {.stuck = disk.stuck ? 1 : 0,
             .opening = disk.opening ? 1 : 0,
             .stuck_for_ns = static_cast<std::uint64_t>(disk.stuck_for.count()),
             .recording = disk.recording.composite(),
             .offset = disk.offset};
}

nvr_stream* nvr_open(nvr_client* client, const nvr_request* request, nvr_error** error) {
  return guard(error, static_cast<nvr_stream*>(nullptr), [&]() -> nvr_stream* {
    nvr_request given = {};
    if (!take(request, given, "nvr_request", error)) return nullptr;
    // As the numbers that a C program can pass: in C++ these enums have no others than the named ones.
    const auto priority = std::bit_cast<std::uint32_t>(given.priority);
    const auto cache = std::bit_cast<std::uint32_t>(given.cache);
    if (priority > NVR_SCRUB || cache > NVR_CACHE_DIRECT) {
      report(error, {.code = nvr::Code::kInvalidArgument, .message = "unknown priority or cache policy"});
      return nullptr;
    }
    auto stream = client->client.open({.recording = nvr::RecordingId::from_composite(given.recording),
                                       .begin = given.begin,
                                       .end = given.end,
                                       .priority = static_cast<nvr::Priority>(priority),
                                       .cache = static_cast<nvr::CachePolicy>(cache),
                                       .follow = milliseconds_of(given.follow_ms)});
    if (stream) return new nvr_stream{.stream = std::move(*stream), .next_chunk = {}, .next_error = {}};
    report(error, stream.error());
    return nullptr;
  });
}
void nvr_stream_free(nvr_stream* stream) {
  delete stream;
}

nvr_next_result nvr_next(nvr_stream* stream, int64_t timeout_ms, nvr_chunk** chunk, nvr_error** error) {
  *chunk = nullptr;
  return guard(error, NVR_FAILED, [&] {
    if (!stream->next_chunk) stream->next_chunk = std::make_unique<nvr_chunk>();
    if (!stream->next_error) stream->next_error = std::make_unique<nvr_error>();
    auto next = timeout_ms == 0  ? stream->stream.try_next()
                : timeout_ms < 0 ? stream->stream.next()
                                 : stream->stream.next(deadline_of(timeout_ms));
    if (!next) return NVR_END;
    if (*next) {
      stream->next_chunk->chunk.emplace(std::move(**next));
      *chunk = stream->next_chunk.release();
      return NVR_CHUNK;
    }
    stream->next_error->error = std::move(next->error());
    if (error != nullptr) *error = stream->next_error.release();
    return NVR_FAILED;
  });
}

void nvr_cancel(nvr_stream* stream) {
  stream->stream.cancel();
}
void nvr_close(nvr_stream* stream) {
  stream->stream.close();
}
void nvr_finish(nvr_stream* stream) {
  stream->stream.finish();
}

int nvr_stream_info(nvr_stream* stream, int64_t timeout_ms, nvr_info* info, nvr_error** error) {
  return guard(error, -1,
               [&] { return give_info(stream->stream.info(deadline_of(timeout_ms)), info, error); });
}
int nvr_stat(nvr_client* client, uint64_t recording, int64_t timeout_ms, nvr_info* info, nvr_error** error) {
  return guard(error, -1, [&] {
    const auto id = nvr::RecordingId::from_composite(recording);
    return give_info(client->client.stat(id, deadline_of(timeout_ms)), info, error);
  });
}

int nvr_stream_file(nvr_stream* stream, int64_t timeout_ms, nvr_file* file, nvr_error** error) {
  return guard(error, -1, [&] {
    if (!has_size(file, error)) return -1;
    return give_file(stream->stream.info(deadline_of(timeout_ms)), file, error);
  });
}
int nvr_stat_file(nvr_client* client, uint64_t recording, int64_t timeout_ms, nvr_file* file,
                  nvr_error** error) {
  return guard(error, -1, [&] {
    if (!has_size(file, error)) return -1;
    const auto id = nvr::RecordingId::from_composite(recording);
    return give_file(client->client.stat(id, deadline_of(timeout_ms)), file, error);
  });
}

const void* nvr_chunk_data(const nvr_chunk* chunk) {
  return chunk->chunk->bytes().data();
}
size_t nvr_chunk_size(const nvr_chunk* chunk) {
  return chunk->chunk->bytes().size();
}
uint64_t nvr_chunk_offset(const nvr_chunk* chunk) {
  return chunk->chunk->offset();
}
void nvr_chunk_release(nvr_chunk* chunk) {
  delete chunk;
}

}  // extern "C"
