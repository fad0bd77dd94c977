// No progress comes from the slices that waits are cut into: with a slice of an hour all goes on.
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "client/src/connection.h"
#include "tests/support/asleep.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

class HourSlices {
 public:
  HourSlices() { internal::wait_slice_ns = std::uint64_t{3600} * 1'000'000'000; }
  ~HourSlices() { internal::wait_slice_ns = before_; }
  HourSlices(const HourSlices&) = delete;
  HourSlices& operator=(const HourSlices&) = delete;

 private:
  std::uint64_t before_ = internal::wait_slice_ns;
};

TEST_CASE("a sleeping reader whose window an earlier stream's chunks fill is told so") {
  const HourSlices slices;
  const Site site;
  const RecordingFile file = site.record({1, 1}, 40 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 2});
  std::vector<Chunk> held;
  {
    Stream first = open_stream(client, file);
    for (int i = 0; i < 2; ++i) {
      auto next = first.next();
      REQUIRE(code_of(next) == Code::kOk);
      held.push_back(std::move(**next));
    }
  }
  REQUIRE(daemon.wait_for_total("streams_open", 0));
  daemon.stop();  // so that the reader is asleep when its file is opened
  Stream stream = open_stream(client, file);
  std::atomic<pid_t> reader_id = 0;
  std::atomic<bool> is_told = false;
  Code code = Code::kOk;
  std::thread reader([&] {
    reader_id = gettid();
    code = code_of(stream.next());
    is_told = true;
  });
  CHECK(wait_until([&] { return is_asleep_on_futex(reader_id); }));
  daemon.go_on();
  CHECK(wait_until([&] { return is_told.load(); }));
  if (!is_told) stream.cancel();
  reader.join();
  CHECK(code == Code::kResourceExhausted);
}

}  // namespace
}  // namespace nvr::test
