// The C interface, call by call, at a scripted daemon: nothing is lost between C++ and C.
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "nvr/nvr_client.h"
#include "shm/clock.h"
#include "tests/client/scripted_daemon.h"
#include "tests/support/wait.h"

namespace nvr::test {
namespace {

constexpr nvr_options kOptions = {.size = sizeof(nvr_options),
                                  .streams = 1,
                                  .slots_per_stream = kScriptedSlots,
                                  .timeout_ms = 0,
                                  .reserved = 0,
                                  .resume_ms = 0};
constexpr nvr_request kRequest = {.size = sizeof(nvr_request),
                                  .recording = 7,
                                  .begin = 0,
                                  .end = NVR_TO_END,
                                  .priority = NVR_PLAYBACK,
                                  .cache = NVR_CACHE_NORMAL,
                                  .follow_ms = 0};

struct Scene {
  ScriptedDaemon daemon;
  std::unique_ptr<nvr_client, void (*)(nvr_client*)> client;
  nvr_error* error = nullptr;

  explicit Scene(const nvr_options& options = kOptions)
      : client(nvr_connect(daemon.socket().c_str(), &options, nullptr), nvr_client_free) {
    REQUIRE(client != nullptr);
  }
  auto open(const nvr_request& request = kRequest) {
    return std::unique_ptr<nvr_stream, void (*)(nvr_stream*)>(nvr_open(client.get(), &request, &error),
                                                              nvr_stream_free);
  }
  // The error that the last call left.
  nvr_code code() {
    if (error == nullptr) return NVR_OK;
    const nvr_code found = nvr_error_code(error);
    nvr_error_free(error);
    error = nullptr;
    return found;
  }
};

// A struct of a program that was compiled with a newer header.
template <class T>
struct Newer {
  T known;
  unsigned char tail[24] = {};
};

TEST_CASE("C: what a newer program asks for is refused unless it asks for nothing new") {
  const ScriptedDaemon daemon;
  Newer<nvr_options> options{.known = kOptions};
  options.known.size = sizeof(options);
  nvr_error* error = nullptr;
  const auto refused_as = [&](const nvr_options& what) {
    nvr_client* const client = nvr_connect(daemon.socket().c_str(), &what, &error);
    REQUIRE(client == nullptr);
    REQUIRE(error != nullptr);
    CHECK(nvr_error_code(error) == NVR_INVALID_ARGUMENT);
    const std::string message = nvr_error_message(error);
    nvr_error_free(std::exchange(error, nullptr));
    return message;
  };
  options.tail[23] = 1;
  CHECK_THAT(refused_as(options.known), Catch::Contains("nvr_options") && Catch::Contains("newer"));
  options.tail[23] = 0;
  options.known.size = 4097;  // no struct is so long: a size that was never set
  CHECK_THAT(refused_as(options.known), Catch::Contains("nvr_options.size"));
  options.known.size = sizeof(options);
  options.known.reserved = 1;
  CHECK_THAT(refused_as(options.known), Catch::Contains("nvr_options.reserved"));
  options.known.reserved = 0;

  Scene scene(options.known);  // nothing new
  Newer<nvr_request> request{.known = kRequest};
  request.known.size = sizeof(request);
  request.tail[0] = 1;
  CHECK(scene.open(request.known) == nullptr);
  CHECK(scene.code() == NVR_INVALID_ARGUMENT);
  request.known.size = 4097;
  CHECK(scene.open(request.known) == nullptr);
  CHECK(scene.code() == NVR_INVALID_ARGUMENT);
  request.known.size = sizeof(request);
  request.tail[0] = 0;
  CHECK(scene.open(request.known) != nullptr);
  CHECK(scene.code() == NVR_OK);
}

TEST_CASE("C: an unknown priority or cache policy is refused, and harms no other stream") {
  Scene scene;
  for (const int wrong : {-1, 4, 1000}) {
    nvr_request request = kRequest;
    std::memcpy(&request.priority, &wrong, sizeof(wrong));  // as a C program would
    CHECK(scene.open(request) == nullptr);
    CHECK(scene.code() == NVR_INVALID_ARGUMENT);
  }
  for (const int wrong : {-1, 3, 1000}) {
    nvr_request request = kRequest;
    std::memcpy(&request.cache, &wrong, sizeof(wrong));
    CHECK(scene.open(request) == nullptr);
    CHECK(scene.code() == NVR_INVALID_ARGUMENT);
  }
  CHECK(scene.daemon.commands().empty());
  nvr_request request = kRequest;
  request.priority = NVR_SCRUB;
  request.cache = NVR_CACHE_DIRECT;
  const auto stream = scene.open(request);
  CHECK(stream != nullptr);
  CHECK(scene.daemon.commands().size() == 1);
}

TEST_CASE("C: what follows a shorter struct of an older caller is not read") {
  nvr_options options = kOptions;
  options.size = offsetof(nvr_options, timeout_ms);
  options.resume_ms = NVR_FOREVER;
  Scene scene(options);
  nvr_request request = kRequest;
  request.size = offsetof(nvr_request, follow_ms);
  request.follow_ms = NVR_FOREVER;
  const auto stream = scene.open(request);
  REQUIRE(stream != nullptr);
  REQUIRE(scene.daemon.commands().size() == 1);
  CHECK(scene.daemon.commands()[0].flags == shm::kOpenToEnd);
  scene.daemon.say_goodbye("tea time");
  CHECK(nvr_dispatch(scene.client.get(), &scene.error) == -1);  // it does not resume
  CHECK(scene.code() == NVR_UNAVAILABLE);
}

TEST_CASE("C: the longest timeout waits") {
  const NoSlices no_slices;
  Scene scene;
  const auto stream = scene.open();
  nvr_info info = {};
  std::thread publisher([&] {
    if (wait_until([&] { return scene.daemon.is_reader_asleep(); })) scene.daemon.publish(opened());
  });
  const int answer = nvr_stream_info(stream.get(), INT64_MAX, &info, &scene.error);
  publisher.join();
  CHECK(answer == 0);
  CHECK(scene.code() == NVR_OK);
}

TEST_CASE("C: an event loop is told of the daemon's end") {
  Scene scene;
  CHECK(nvr_dispatch(scene.client.get(), &scene.error) == 0);
  CHECK(scene.code() == NVR_OK);
  scene.daemon.say_goodbye("tea time");
  CHECK(nvr_dispatch(scene.client.get(), &scene.error) == -1);
  CHECK(scene.code() == NVR_UNAVAILABLE);
}

TEST_CASE("C: the disk's state is the daemon's account of it") {
  Scene scene;
  nvr_disk_status status = {};
  nvr_get_disk_status(scene.client.get(), &status);
  CHECK(status.stuck == 0);
  const std::uint64_t now = shm::now_ns();
  for (const auto operation : {shm::DiskOperation::kRead, shm::DiskOperation::kOpen}) {
    scene.daemon.show_disk(
        {.operation = operation, .since_ns = now - shm::kSecond, .recording = 7, .offset = 9}, false);
    nvr_get_disk_status(scene.client.get(), &status);
    CHECK(status.stuck == 1);
    CHECK(status.opening == (operation == shm::DiskOperation::kOpen ? 1 : 0));
    CHECK(status.stuck_for_ns >= shm::kSecond);
    CHECK(status.recording == 7);
    CHECK(status.offset == 9);
  }
  // Written after we looked at the clock.
  scene.daemon.show_disk({.operation = shm::DiskOperation::kRead, .since_ns = now + 3600 * shm::kSecond},
                         false);
  nvr_get_disk_status(scene.client.get(), &status);
  CHECK(status.stuck_for_ns == 0);
}

TEST_CASE("C: the facts of a recording are all there") {
  Scene scene;
  shm::Descriptor descriptor = opened();
  descriptor.file_device = 11;
  descriptor.file_inode = 12;
  descriptor.file_mtime_ns = 13;
  scene.daemon.publish(descriptor);
  scene.daemon.publish(terminal(shm::DescriptorKind::kEnd));
  nvr_info info = {};
  REQUIRE(nvr_stat(scene.client.get(), 7, NVR_FOREVER, &info, &scene.error) == 0);
  CHECK(info.device == 11);
  CHECK(info.inode == 12);
  CHECK(info.size == kScriptedSize);
  CHECK(info.mtime_ns == 13);
}

TEST_CASE("C: the file of a recording is told with its birth time, as far as the caller's struct goes") {
  Scene scene;
  shm::Descriptor descriptor = opened();
  descriptor.offset = static_cast<std::uint64_t>(-14);
  descriptor.file_device = 11;
  descriptor.file_inode = 12;
  descriptor.file_mtime_ns = 13;
  scene.daemon.publish(descriptor);
  const auto stream = scene.open();
  nvr_file file = {};
  CHECK(nvr_stream_file(stream.get(), NVR_FOREVER, &file, &scene.error) == -1);
  CHECK(scene.code() == NVR_INVALID_ARGUMENT);
  file.struct_size = offsetof(nvr_file, birth_ns);
  file.birth_ns = 99;
  REQUIRE(nvr_stream_file(stream.get(), NVR_FOREVER, &file, &scene.error) == 0);
  CHECK(file.struct_size == offsetof(nvr_file, birth_ns));
  CHECK(file.device == 11);
  CHECK(file.inode == 12);
  CHECK(file.size == kScriptedSize);
  CHECK(file.mtime_ns == 13);
  CHECK(file.birth_ns == 99);  // not touched
  file.struct_size = sizeof(file);
  REQUIRE(nvr_stream_file(stream.get(), NVR_FOREVER, &file, &scene.error) == 0);
  CHECK(file.birth_ns == -14);
  file.struct_size = 0;
  CHECK(nvr_stat_file(scene.client.get(), 7, 0, &file, &scene.error) == -1);
  CHECK(scene.code() == NVR_INVALID_ARGUMENT);
}

TEST_CASE("C: a recording can be asked for its file") {
  Scene scene;
  shm::Descriptor descriptor = opened();
  descriptor.offset = 15;
  scene.daemon.publish(descriptor);
  scene.daemon.publish(terminal(shm::DescriptorKind::kEnd));
  nvr_file file = {};
  file.struct_size = sizeof(file);
  REQUIRE(nvr_stat_file(scene.client.get(), 7, NVR_FOREVER, &file, &scene.error) == 0);
  CHECK(file.inode == 1);
  CHECK(file.birth_ns == 15);
}

}  // namespace
}  // namespace nvr::test
