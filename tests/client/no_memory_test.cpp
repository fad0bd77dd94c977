// Every call of the C interface, and each allocation that it makes refused in turn: nothing aborts, nothing
// leaks, and a stream that lost bytes or an error never looks complete.
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "nvr/nvr_client.h"
#include "nvr/playlist.h"
#include "tests/client/scripted_daemon.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

extern "C" {
void nvr_test_refuse_allocation(long long nth, int and_all_after_it);
unsigned long long nvr_test_allow_allocations(void);
}

namespace nvr::test {
namespace {

constexpr int kMost = 300;

// Refused until it is dropped. Nothing of the test framework may be used meanwhile.
class Refusal {
 public:
  Refusal(int nth, bool and_all_after_it) { nvr_test_refuse_allocation(nth, and_all_after_it ? 1 : 0); }
  ~Refusal() { static_cast<void>(nvr_test_allow_allocations()); }
  Refusal(const Refusal&) = delete;
  Refusal& operator=(const Refusal&) = delete;
};

struct Shared {
  std::size_t descriptors = 0;
  std::size_t mappings = 0;
};
// The descriptors and mappings of connections in this process.
Shared shared_now() {
  Shared now{.descriptors = descriptors_of(getpid()).size()};
  for (const MapEntry& map : mappings_of(getpid()))
    now.mappings += map.name.find("/memfd:nvr-") != std::string::npos ? 1 : 0;
  return now;
}

nvr_request request_of(std::uint64_t recording) {
  return {.size = sizeof(nvr_request),
          .recording = recording,
          .begin = 0,
          .end = NVR_TO_END,
          .priority = NVR_PLAYBACK,
          .cache = NVR_CACHE_NORMAL,
          .follow_ms = 0};
}

// The code of `*error`, which is freed: that must work, too.
nvr_code take_code(nvr_error** error) {
  if (*error == nullptr) return NVR_OK;
  const nvr_code code = nvr_error_code(*error);
  if (nvr_error_message(*error)[0] == '\0') std::abort();
  nvr_error_free(*error);
  *error = nullptr;
  return code;
}

// How a stream went; allocates nothing itself.
struct Reading {
  std::uint64_t bytes = 0;
  bool is_exact = true;
  nvr_code last = NVR_OK;  // the error that ended it
  bool ended_twice = false;
};

// Reads to the end. `expected`: the bytes that there are.
Reading read_all(nvr_stream* stream, const std::vector<std::byte>& expected) {
  Reading reading;
  for (int exhausted = 0;;) {
    nvr_chunk* chunk = nullptr;
    nvr_error* error = nullptr;
    const nvr_next_result result = nvr_next(stream, NVR_FOREVER, &chunk, &error);
    const nvr_code code = take_code(&error);
    if (result == NVR_END) return reading;
    if (result == NVR_CHUNK) {
      const std::size_t size = nvr_chunk_size(chunk);
      const std::uint64_t offset = nvr_chunk_offset(chunk);
      reading.is_exact = reading.is_exact && reading.last == NVR_OK && offset == reading.bytes &&
                         offset + size <= expected.size() &&
                         std::memcmp(nvr_chunk_data(chunk), expected.data() + offset, size) == 0;
      reading.bytes += size;
      nvr_chunk_release(chunk);
    } else if (code == NVR_RESOURCE_EXHAUSTED) {
      // It goes on, once there is memory.
      if (++exhausted == 10) static_cast<void>(nvr_test_allow_allocations());
    } else {
      reading.ended_twice = reading.ended_twice || reading.last != NVR_OK;
      reading.last = code;
    }
  }
}

// Everything there is, once, with a client of its own.
struct Round {
  nvr_code connect = NVR_OK;
  nvr_code open = NVR_OK;
  nvr_code reopen = NVR_OK;  // of all streams, with memory again
  Reading complete;
  Reading missing;
  Reading cancelled;
  int stats = 0;  // that were answered as they must be
};

Round run(const std::string& socket, std::uint64_t recording, const std::vector<std::byte>& expected,
          bool resumes) {
  Round round;
  nvr_error* error = nullptr;
  const nvr_options options = {.size = sizeof(nvr_options),
                               .streams = 2,
                               .slots_per_stream = 4,
                               .timeout_ms = 0,
                               .reserved = 0,
                               .resume_ms = resumes ? NVR_FOREVER : 0};
  nvr_client* const client = nvr_connect(socket.c_str(), &options, &error);
  round.connect = take_code(&error);
  if (client == nullptr) return round;
  if (nvr_native_handle(client) < 0) std::abort();
  static_cast<void>(nvr_dispatch(client, &error));
  static_cast<void>(take_code(&error));
  nvr_disk_status status;
  nvr_get_disk_status(client, &status);

  const auto open = [&](std::uint64_t id) {
    const nvr_request request = request_of(id);
    nvr_stream* const stream = nvr_open(client, &request, &error);
    const nvr_code code = take_code(&error);
    if (stream == nullptr) round.open = code;
    return stream;
  };
  if (nvr_stream* const stream = open(recording)) {
    nvr_info info = {};
    if (nvr_stream_info(stream, NVR_FOREVER, &info, &error) == 0 && info.size != expected.size())
      std::abort();
    static_cast<void>(take_code(&error));
    round.complete = read_all(stream, expected);
    nvr_stream_free(stream);
  } else {
    round.complete.last = NVR_RESOURCE_EXHAUSTED;
  }
  if (nvr_stream* const stream = open(nvr_recording(99, 99))) {
    nvr_info info = {};
    if (nvr_stream_info(stream, NVR_FOREVER, &info, &error) == 0) std::abort();
    static_cast<void>(take_code(&error));
    round.missing = read_all(stream, {});
    nvr_stream_free(stream);
  } else {
    round.missing.last = NVR_RESOURCE_EXHAUSTED;
  }
  if (nvr_stream* const stream = open(recording)) {
    nvr_finish(stream);
    nvr_cancel(stream);
    round.cancelled = read_all(stream, expected);
    nvr_stream_free(stream);
  } else {
    round.cancelled.last = NVR_RESOURCE_EXHAUSTED;
  }
  nvr_file file = {};
  file.struct_size = sizeof(file);
  if (nvr_stat_file(client, recording, NVR_FOREVER, &file, &error) == 0)
    round.stats += file.size == expected.size() ? 1 : 0;
  else
    round.stats += take_code(&error) == NVR_RESOURCE_EXHAUSTED ? 1 : 0;
  nvr_info info = {};
  if (nvr_stat(client, nvr_recording(99, 99), NVR_FOREVER, &info, &error) != 0) {
    const nvr_code code = take_code(&error);
    round.stats += code == NVR_NOT_FOUND || code == NVR_RESOURCE_EXHAUSTED ? 1 : 0;
  }

  static_cast<void>(nvr_test_allow_allocations());
  // No place got lost: all streams can be open at a time.
  nvr_stream* streams[2] = {nullptr, nullptr};
  for (nvr_stream*& stream : streams) {
    const nvr_request request = request_of(recording);
    stream = nvr_open(client, &request, &error);
    if (const nvr_code code = take_code(&error); code != NVR_OK) round.reopen = code;
  }
  for (nvr_stream* const stream : streams) nvr_stream_free(stream);
  nvr_client_free(client);
  return round;
}

TEST_CASE("C: no allocation that fails aborts, leaks, or makes a recording look complete that is not") {
  const bool and_all_after_it = GENERATE(false, true);
  const bool resumes = GENERATE(false, true);
  const Site site;
  const RecordingFile file = site.record({1, 1}, 10 * kChunkBytes + 1);
  const std::vector<std::byte> expected = file.bytes(0, file.size);
  const DaemonProcess daemon = site.start();
  const std::string socket = daemon.socket();
  REQUIRE(run(socket, file.id.composite(), expected, resumes).connect == NVR_OK);
  const Shared before = shared_now();
  int connected = 0;
  int complete = 0;
  for (int nth = 1; nth <= kMost; ++nth) {
    CAPTURE(and_all_after_it, resumes, nth);
    Round round;
    {
      const Refusal refusal(nth, and_all_after_it);
      round = run(socket, file.id.composite(), expected, resumes);
    }
    const Shared after = shared_now();
    CHECK(after.descriptors == before.descriptors);
    CHECK(after.mappings == before.mappings);
    if (round.connect != NVR_OK) {
      CHECK(round.connect == NVR_RESOURCE_EXHAUSTED);
      continue;
    }
    ++connected;
    CHECK((round.open == NVR_OK || round.open == NVR_RESOURCE_EXHAUSTED));
    CHECK(round.complete.is_exact);
    CHECK_FALSE(round.complete.ended_twice);
    if (round.complete.last == NVR_OK) {
      ++complete;
      CHECK(round.complete.bytes == file.size);
    } else {
      CHECK((round.complete.last == NVR_ABORTED || round.complete.last == NVR_RESOURCE_EXHAUSTED));
    }
    CHECK((round.missing.last == NVR_NOT_FOUND || round.missing.last == NVR_ABORTED ||
           round.missing.last == NVR_RESOURCE_EXHAUSTED));
    CHECK_FALSE(round.missing.ended_twice);
    CHECK((round.cancelled.last == NVR_CANCELLED || round.cancelled.last == NVR_ABORTED ||
           round.cancelled.last == NVR_RESOURCE_EXHAUSTED));
    CHECK_FALSE(round.cancelled.ended_twice);
    CHECK(round.stats == 2);
    CHECK(round.reopen == NVR_OK);
  }
  CHECK(connected > 0);
  CHECK(complete > 0);
  CHECK(daemon.wait_for_total("connections_now", 0));
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("C: an error for which there is no memory is told with the next call, whichever call met it") {
  const bool and_all_after_it = GENERATE(false, true);
  const bool info_first = GENERATE(false, true);
  const auto kind =
      GENERATE(shm::DescriptorKind::kError, shm::DescriptorKind::kClosed, shm::DescriptorKind::kEnd);
  const nvr_options options = {.size = sizeof(nvr_options),
                               .streams = 1,
                               .slots_per_stream = kScriptedSlots,
                               .timeout_ms = 0,
                               .reserved = 0,
                               .resume_ms = 0};
  const bool before_opened = GENERATE(false, true);
  int aborted = 0;
  for (int nth = 1; nth <= 20; ++nth) {
    CAPTURE(and_all_after_it, info_first, static_cast<int>(kind), before_opened, nth);
    ScriptedDaemon daemon;
    nvr_client* const client = nvr_connect(daemon.socket().c_str(), &options, nullptr);
    REQUIRE(client != nullptr);
    const nvr_request request = request_of(7);
    nvr_stream* const stream = nvr_open(client, &request, nullptr);
    REQUIRE(stream != nullptr);
    if (!before_opened) {
      daemon.publish(opened());
      daemon.publish(chunk(0, 0));
    }
    daemon.publish({.kind = kind,
                    .code = static_cast<std::uint16_t>(Code::kDataLoss),
                    .detail = shm::Detail::kReadFailed,
                    .sys_errno = 5,
                    .offset = kChunkBytes});
    std::uint64_t bytes = 0;
    nvr_code last = NVR_OK;
    {
      const Refusal refusal(nth, and_all_after_it);
      nvr_error* error = nullptr;
      nvr_info info;
      if (info_first && nvr_stream_info(stream, NVR_FOREVER, &info, &error) != 0)
        static_cast<void>(take_code(&error));
      for (int calls = 0; calls < 100; ++calls) {
        if (calls == 10) static_cast<void>(nvr_test_allow_allocations());
        nvr_chunk* next = nullptr;
        const nvr_next_result result = nvr_next(stream, NVR_FOREVER, &next, &error);
        const nvr_code code = take_code(&error);
        if (result == NVR_END) break;
        if (result == NVR_CHUNK) bytes += nvr_chunk_size(next);
        nvr_chunk_release(next);
        if (result == NVR_FAILED && code != NVR_RESOURCE_EXHAUSTED) last = code;
      }
    }
    CHECK(bytes == (before_opened ? 0 : kChunkBytes));
    const nvr_code expected = kind == shm::DescriptorKind::kError ? NVR_DATA_LOSS : NVR_INTERNAL;
    CHECK((last == expected || last == NVR_ABORTED));
    aborted += last == NVR_ABORTED ? 1 : 0;
    nvr_stream_free(stream);
    nvr_client_free(client);
  }
  CHECK(aborted > 0);
}

TEST_CASE("C: whichever allocation fails, a stream goes on under the next daemon or says that it does not") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 12 * kChunkBytes + 1);
  const std::vector<std::byte> expected = file.bytes(0, file.size);
  const nvr_options options = {.size = sizeof(nvr_options),
                               .streams = 1,
                               .slots_per_stream = 2,
                               .timeout_ms = 0,
                               .reserved = 0,
                               .resume_ms = NVR_FOREVER};
  int complete = 0;
  int refused = 0;
  for (int nth = 1; nth <= 40; ++nth) {
    CAPTURE(nth);
    std::optional<DaemonProcess> daemon(site.start());
    const Shared before = shared_now();
    nvr_client* const client = nvr_connect(daemon->socket().c_str(), &options, nullptr);
    REQUIRE(client != nullptr);
    const nvr_request request = request_of(file.id.composite());
    nvr_stream* const stream = nvr_open(client, &request, nullptr);
    REQUIRE(stream != nullptr);
    REQUIRE(daemon->wait_for_total("chunks", 2));  // its window is full
    daemon->kill();
    daemon.emplace(site.start());
    nvr_test_refuse_allocation(nth, 0);
    const Reading reading = read_all(stream, expected);
    refused += nvr_test_allow_allocations() != 0 ? 1 : 0;
    CHECK(reading.is_exact);
    if (reading.last == NVR_OK)
      CHECK(reading.bytes == file.size);
    else
      CHECK(reading.last == NVR_ABORTED);
    complete += reading.last == NVR_OK ? 1 : 0;
    nvr_stream_free(stream);
    nvr_client_free(client);
    CHECK(shared_now().mappings == before.mappings);
  }
  CHECK(complete > 0);
  CHECK(refused > 5);
}

TEST_CASE("C: an open that is refused without memory for the reason costs no place") {
  ScriptedDaemon daemon;
  const nvr_options options = {.size = sizeof(nvr_options),
                               .streams = 1,
                               .slots_per_stream = kScriptedSlots,
                               .timeout_ms = 0,
                               .reserved = 0,
                               .resume_ms = NVR_FOREVER};
  nvr_client* const client = nvr_connect(daemon.socket().c_str(), &options, nullptr);
  REQUIRE(client != nullptr);
  daemon.show_disk({}, true);  // as with --fail-fast
  const nvr_request request = request_of(7);
  nvr_error* error = nullptr;
  int exhausted = 0;
  for (int nth = 1; nth <= 20; ++nth) {
    CAPTURE(nth);
    nvr_stream* refused = nullptr;
    {
      const Refusal refusal(nth, false);
      refused = nvr_open(client, &request, &error);
    }
    CHECK(refused == nullptr);
    const nvr_code code = take_code(&error);
    CHECK((code == NVR_UNAVAILABLE || code == NVR_RESOURCE_EXHAUSTED));
    exhausted += code == NVR_RESOURCE_EXHAUSTED ? 1 : 0;
  }
  CHECK(exhausted > 1);
  daemon.show_disk({}, false);
  nvr_stream* const stream = nvr_open(client, &request, &error);
  CHECK(stream != nullptr);
  CHECK(take_code(&error) == NVR_OK);
  nvr_stream_free(stream);
  nvr_client_free(client);
}

TEST_CASE("C: a stream whose sleep ends without memory for the reason is awake") {
  for (int nth = 1; nth <= 10; ++nth) {
    CAPTURE(nth);
    ScriptedDaemon daemon;
    const nvr_options options = {.size = sizeof(nvr_options),
                                 .streams = 1,
                                 .slots_per_stream = kScriptedSlots,
                                 .timeout_ms = 0,
                                 .reserved = 0,
                                 .resume_ms = 0};
    nvr_client* const client = nvr_connect(daemon.socket().c_str(), &options, nullptr);
    REQUIRE(client != nullptr);
    const nvr_request request = request_of(7);
    nvr_stream* const stream = nvr_open(client, &request, nullptr);
    REQUIRE(stream != nullptr);
    nvr_chunk* next = nullptr;
    nvr_error* error = nullptr;
    nvr_next_result result = NVR_END;
    {
      const Refusal refusal(nth, true);
      result = nvr_next(stream, 1, &next, &error);
    }
    CHECK(result == NVR_FAILED);
    const nvr_code code = take_code(&error);
    CHECK((code == NVR_RESOURCE_EXHAUSTED || code == NVR_DEADLINE_EXCEEDED));
    CHECK_FALSE(daemon.is_reader_asleep());
    daemon.publish(opened());
    daemon.publish(chunk(0, 0));
    CHECK(nvr_next(stream, NVR_FOREVER, &next, &error) == NVR_CHUNK);
    nvr_chunk_release(next);
    nvr_stream_free(stream);
    nvr_client_free(client);
  }
}

TEST_CASE("no allocation that fails makes a playlist skip what cannot be read") {
  const bool and_all_after_it = GENERATE(false, true);
  const bool is_complete = GENERATE(false, true);
  const Site site;
  std::vector<Slice> slices;
  std::vector<std::byte> expected;
  for (std::uint32_t i = 0; i < 3; ++i) {
    const RecordingFile file = site.record({1, i}, 2 * kChunkBytes + i);
    slices.push_back({.recording = file.id, .begin = 0, .end = file.size});
    const auto content = file.bytes(0, file.size);
    expected.insert(expected.end(), content.begin(), content.end());
    if (i == 1 && !is_complete) std::filesystem::remove(file.path);
  }
  const std::uint64_t good = is_complete ? expected.size() : slices[0].end;
  const DaemonProcess daemon = site.start();
  int aborted = 0;
  int told = 0;
  for (int nth = 1; nth <= 60; ++nth) {
    CAPTURE(and_all_after_it, is_complete, nth);
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
    auto playlist = Playlist::open(client, slices, {.open_ahead_bytes = UINT64_MAX});
    REQUIRE(playlist.has_value());
    std::uint64_t position = 0;
    bool is_exact = true;
    std::optional<Code> last;
    {
      const Refusal refusal(nth, and_all_after_it);
      for (int thrown = 0;;) {
        try {
          const auto next = playlist->next();
          if (!next) break;
          if (!*next) {
            if (next->error().code != Code::kResourceExhausted) last = next->error().code;
          } else {
            const auto found = (*next)->bytes();
            is_exact = is_exact && !last && found.size() <= expected.size() - position &&
                       std::memcmp(found.data(), expected.data() + position, found.size()) == 0;
            position += found.size();
          }
        } catch (const std::bad_alloc&) {
          if (++thrown == 10) static_cast<void>(nvr_test_allow_allocations());
        }
      }
    }
    CHECK(is_exact);
    if (last == Code::kAborted) {
      ++aborted;
    } else {
      CHECK(last == (is_complete ? std::nullopt : std::optional(Code::kNotFound)));
      CHECK(position == good);
      ++told;
    }
  }
  CHECK(told > 0);
  CHECK((is_complete || aborted > 0));
}

TEST_CASE("C: freeing an error allocates nothing") {
  nvr_error* error = nullptr;
  CHECK(nvr_connect("/nowhere", nullptr, &error) == nullptr);
  REQUIRE(error != nullptr);
  nvr_test_refuse_allocation(1, 1);
  nvr_error_free(error);
  nvr_error_free(nullptr);
  CHECK(nvr_test_allow_allocations() == 0);
}

}  // namespace
}  // namespace nvr::test
