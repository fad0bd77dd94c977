// Recordings that are still being written: OpenRequest::follow, Stream::finish(), nvr-cat --follow.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "nvr/nvr_client.h"
#include "tests/support/client_process.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kForEver = milliseconds::max();

// A recording that has `size` bytes of the `final_size` that it will have.
struct Growing {
  RecordingFile file;  // as it will be
  std::uint64_t size;

  Growing(const Site& site, RecordingId id, std::uint64_t size_now, std::uint64_t final_size)
      : file(site.record(id, size_now)), size(size_now) {
    file.size = final_size;
  }
  // Appends, up to `until`.
  void grow(std::uint64_t until) {
    const auto bytes = file.bytes(size, until);
    const shm::UniqueFd fd(open(file.path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      throw TestFailure("cannot append to " + file.path);
    size = until;
  }
  [[nodiscard]] OpenRequest request(milliseconds follow = kForEver) const {
    return {.recording = file.id, .follow = follow};
  }
};

// A process that appends what is missing in pieces of random sizes, with pauses, as a recorder does.
ClientProcess start_writer(Growing& growing, milliseconds about) {
  const std::uint64_t seed = test_random()();
  const std::uint64_t piece = std::max<std::uint64_t>(1, (growing.file.size - growing.size) / 40);
  return ClientProcess::start([growing, seed, piece, about](const Reporter&) mutable {
    Random random(seed);
    while (growing.size < growing.file.size) {
      growing.grow(std::min(growing.file.size, growing.size + pick(random, 1, 2 * piece)));
      std::this_thread::sleep_for(about / 40);
    }
  });
}

// A stream whose recording has grown no further gives nothing, and goes on.
void require_nothing_yet(Stream& stream) {
  REQUIRE(code_of(stream.next(in(milliseconds(1)))) == Code::kDeadlineExceeded);
  REQUIRE(code_of(stream.try_next()) == Code::kDeadlineExceeded);
}

void require_chunks(Stream& stream, ChunkChecker& checker, int count) {
  for (int i = 0; i < count; ++i) {
    const auto next = stream.next(in(kLongEnough));
    REQUIRE(code_of(next) == Code::kOk);
    REQUIRE(next);
    REQUIRE(checker.accept(**next));
  }
}

// Until there may be something for its streams.
void wait_for_event(Client& client) {
  pollfd entry = {.fd = client.native_handle(), .events = POLLIN, .revents = 0};
  REQUIRE(poll(&entry, 1, static_cast<int>(milliseconds(kLongEnough).count())) == 1);
  REQUIRE(client.dispatch().has_value());
}

TEST_CASE("a recording is followed while another process writes it, and ends when its reader is told") {
  const Site site;
  const std::vector<std::string> device_kinds = {"solid", "rotational"};
  std::uint32_t camera = 0;
  for (const std::string& kind : device_kinds) {
    const DaemonProcess daemon = site.start({"--device-kind", kind});
    Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
    for (const CachePolicy cache : {CachePolicy::kNormal, CachePolicy::kDrop}) {
      CAPTURE(kind, static_cast<int>(cache));
      ++camera;
      Growing growing(site, {camera, 1}, pick(test_random(), 0, 300'000), 5'000'000 + camera);
      const std::uint64_t begin = pick(test_random(), 0, growing.size);
      OpenRequest request = growing.request();
      request.begin = begin;
      request.cache = cache;
      Stream stream = open_stream(client, request);
      ClientProcess writer = start_writer(growing, milliseconds(1000));
      ChunkChecker checker(growing.file, begin, growing.file.size);
      // Whole chunks, as many as there will be.
      require_chunks(stream, checker, static_cast<int>((growing.file.size - begin) / kChunkBytes));
      REQUIRE(writer.failure() == "");
      require_nothing_yet(stream);
      stream.finish();
      const Outcome outcome = drain(stream, &checker);
      CHECK_FALSE(outcome.error.has_value());
      CHECK(outcome.problem == "");
      CHECK(outcome.chunks == ((growing.file.size - begin) % kChunkBytes == 0 ? 0 : 1));
      CHECK(checker.is_complete());
    }
    CHECK(daemon.total("violations") == 0);
    CHECK(daemon.wait_for_total("streams_open", 0));
  }
}

// Grows a recording to its final size in `kSteps` steps, and knows when each of them was taken.
class TimedWriter {
 public:
  static constexpr std::uint64_t kSteps = 20;

  TimedWriter(Growing& growing, milliseconds pause) : sizes_{growing.size}, begun_{Clock::now()} {
    thread_ = std::thread([this, &growing, pause] {
      const std::uint64_t first = growing.size;
      for (std::uint64_t step = 1; step <= kSteps; ++step) {
        std::this_thread::sleep_for(pause);
        sizes_.push_back(first + (growing.file.size - first) * step / kSteps);
        begun_.push_back(Clock::now());
        growing.grow(sizes_.back());
        ended_.push_back(Clock::now());
      }
    });
  }
  ~TimedWriter() {
    if (thread_.joinable()) thread_.join();
  }
  TimedWriter(const TimedWriter&) = delete;
  TimedWriter& operator=(const TimedWriter&) = delete;

  // A reader that was given `quiet` was told at `at` that the recording has ended at `size`. Nothing had
  // grown for that long before; and if that was not the end, this machine kept the writer waiting for that
  // long.
  void check_end(std::uint64_t size, Clock::time_point at, milliseconds quiet) {
    thread_.join();
    const auto found = std::ranges::find(sizes_, size);
    REQUIRE(found != sizes_.end());
    const auto step = static_cast<std::size_t>(found - sizes_.begin());
    CHECK(at - begun_[step] >= quiet);
    if (step < kSteps) CHECK(ended_[step] - begun_[step] >= quiet);
  }

 private:
  std::vector<std::uint64_t> sizes_;
  std::vector<Clock::time_point> begun_;
  std::vector<Clock::time_point> ended_;  // of the steps after the first size
  std::thread thread_;
};

TEST_CASE("a recording that is followed ends when it has not grown for the time given, and not before") {
  constexpr milliseconds kQuiet{600};
  const bool in_event_loop = GENERATE(false, true);
  CAPTURE(in_event_loop);
  const Site site;
  Growing growing(site, {1, 1}, 10, 1'000'003);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  TimedWriter writer(growing, 2 * kQuiet / TimedWriter::kSteps);  // takes longer than kQuiet in all
  Stream stream = open_stream(client, growing.request(kQuiet));
  if (in_event_loop) REQUIRE(client.dispatch().has_value());
  std::uint64_t size = 0;
  for (;;) {
    const auto next = in_event_loop ? stream.try_next() : stream.next(in(kLongEnough));
    if (!next) break;
    if (*next) {
      const Chunk& chunk = **next;
      REQUIRE(chunk.offset() == size);
      REQUIRE(growing.file.difference(size, chunk.bytes()) == "");
      size += chunk.bytes().size();
    } else {
      REQUIRE(in_event_loop);
      wait_for_event(client);
    }
  }
  writer.check_end(size, Clock::now(), kQuiet);
  CHECK_FALSE(stream.next().has_value());
}

TEST_CASE("a range of a recording that is followed ends at its end, wherever the recording goes") {
  const Site site;
  Growing growing(site, {1, 1}, 3 * kChunkBytes / 2, 8 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  const std::uint64_t end = 4 * kChunkBytes + 5;
  OpenRequest request = growing.request();
  request.begin = 5;
  request.end = end;
  Stream stream = open_stream(client, request);
  ChunkChecker checker(growing.file, 5, end);
  require_chunks(stream, checker, 1);
  require_nothing_yet(stream);
  growing.grow(end - 1);
  require_chunks(stream, checker, 2);
  require_nothing_yet(stream);  // the last chunk lacks a byte
  growing.grow(growing.file.size);
  require_chunks(stream, checker, 1);
  CHECK_FALSE(stream.next().has_value());
  CHECK(checker.is_complete());
}

TEST_CASE("following and finishing at the edges") {
  const Site site;
  Growing empty(site, {1, 1}, 0, 100);
  Growing half(site, {1, 2}, 50'000, 100'000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 2});
  SECTION("finished before anything was there") {
    Stream stream = open_stream(client, empty.request());
    stream.finish();
    stream.finish();
    CHECK_FALSE(stream.next().has_value());
    stream.finish();
  }
  SECTION("told from another thread, while next() waits") {
    Stream stream = open_stream(client, half.request());
    require_nothing_yet(stream);
    std::thread other([&] { stream.finish(); });
    CHECK(problem_reading(stream, {half.file.id, half.file.path, 50'000, half.file.seed}, 0, 50'000) == "");
    other.join();
  }
  SECTION("a stream that follows nothing is told nothing") {
    Stream stream = open_stream(client, {.recording = half.file.id});
    stream.finish();
    CHECK(problem_reading(stream, {half.file.id, half.file.path, 50'000, half.file.seed}, 0, 50'000) == "");
  }
  SECTION("from behind its end it cannot be") {
    OpenRequest request = half.request();
    request.begin = 50'001;
    Stream stream = open_stream(client, request);
    CHECK(code_of(stream.next()) == Code::kOutOfRange);
    request.begin = 50'000;
    Stream at_end = open_stream(client, request);
    require_nothing_yet(at_end);
  }
  SECTION("past the page cache it cannot be") {
    OpenRequest request = half.request();
    request.cache = CachePolicy::kDirect;
    const auto refused = client.open(request);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == Code::kInvalidArgument);
  }
  SECTION("a missing one is missing") {
    Stream stream = open_stream(client, {.recording = {9, 9}, .follow = kForEver});
    CHECK(code_of(stream.next()) == Code::kNotFound);
  }
  SECTION("a full window is the reader's own affair") {
    half.grow(half.file.size);  // one whole chunk
    Growing more(site, {1, 3}, 5 * kChunkBytes, 9 * kChunkBytes);
    Stream stream = open_stream(client, more.request());
    std::vector<Chunk> kept;
    ChunkChecker checker(more.file, 0, more.file.size);
    for (int i = 0; i < 2; ++i) {
      auto next = stream.next();
      REQUIRE(code_of(next) == Code::kOk);
      REQUIRE(checker.accept(**next));
      kept.push_back(std::move(**next));
    }
    CHECK(code_of(stream.next()) == Code::kResourceExhausted);
    kept.clear();
    require_chunks(stream, checker, 3);
    more.grow(more.file.size);
    require_chunks(stream, checker, 4);
    stream.finish();
    CHECK_FALSE(stream.next().has_value());
  }
  CHECK(daemon.total("violations") == 0);
}

TEST_CASE("a recording that is followed and becomes shorter is DataLoss, behind the bytes before it") {
  const Site site;
  Growing growing(site, {1, 1}, 2 * kChunkBytes + 100, 4 * kChunkBytes);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  for (const std::uint64_t size : {2 * kChunkBytes + 99, std::uint64_t{7}}) {
    CAPTURE(size);
    Stream stream = open_stream(client, growing.request());
    ChunkChecker checker(growing.file, 0, growing.file.size);
    require_chunks(stream, checker, 2);
    require_nothing_yet(stream);
    REQUIRE(truncate(growing.file.path.c_str(), static_cast<off_t>(size)) == 0);
    const auto next = stream.next(in(kLongEnough));
    REQUIRE(code_of(next) == Code::kDataLoss);
    CHECK(next->error().offset == size);
    CHECK_FALSE(stream.next().has_value());
    growing.size = size;
    growing.grow(2 * kChunkBytes + 100);
  }
}

TEST_CASE("close and cancel end a stream that waits for growth") {
  const Site site;
  Growing growing(site, {1, 1}, 10, 10);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  for (int i = 0; i < scaled(40, 10); ++i) {
    CAPTURE(i);
    const bool by_cancel = i % 2 == 0;
    Stream stream = open_stream(client, growing.request());
    const std::chrono::microseconds delay(pick(test_random(), 0, 3'000));
    std::thread other([&] {
      std::this_thread::sleep_for(delay);
      by_cancel ? stream.cancel() : stream.close();
    });
    CHECK(code_of(stream.next()) == (by_cancel ? Code::kCancelled : Code::kOk));
    other.join();
  }
  { const Stream dropped = open_stream(client, growing.request()); }
  CHECK(daemon.wait_for_total("streams_open", 0));
  CHECK(daemon.total("violations") == 0);
}

// Clock ticks that a process has had of the CPUs.
std::uint64_t cpu_ticks(pid_t pid) {
  const std::string text = read_file("/proc/" + std::to_string(pid) + "/stat");
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  std::uint64_t user = 0;
  std::uint64_t system = 0;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  fields >> user >> system;
  return user + system;
}

TEST_CASE("a daemon with followers and nothing to read looks a few times a second, and sleeps") {
  const Site site;
  const Growing growing(site, {1, 1}, 10, 10);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 16, .slots_per_stream = 2});
  std::vector<Stream> streams;
  for (int i = 0; i < 16; ++i) streams.push_back(open_stream(client, growing.request()));
  for (Stream& stream : streams) require_nothing_yet(stream);
  const auto begin = Clock::now();
  const std::uint64_t ticks = cpu_ticks(daemon.pid());
  const std::uint64_t sleeps = daemon.total("sleeps");
  std::uint64_t slept = 0;
  REQUIRE(wait_until([&] {  // it does look
    std::this_thread::sleep_for(milliseconds(1000));
    return (slept = daemon.total("sleeps") - sleeps) >= 4;
  }));
  // Bounds per second of a clock that goes on whatever the machine does: a slow one only has the daemon look
  // less often. Of a thread that spins there would be 100 ticks and thousands of sleeps a second.
  const double spent = static_cast<double>(cpu_ticks(daemon.pid()) - ticks);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  CHECK(spent < 50 * seconds);
  CHECK(static_cast<double>(slept) < 16 * 4 * 1.5 * seconds + 20);
}

TEST_CASE("an event loop follows a recording, and ends when it is told", "[once]") {
  const Site site;
  Growing growing(site, {1, 1}, 0, 2'000'001);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  Stream stream = open_stream(client, growing.request());
  ClientProcess writer = start_writer(growing, milliseconds(800));
  ChunkChecker checker(growing.file, 0, growing.file.size);
  REQUIRE(client.dispatch().has_value());
  for (;;) {
    const auto next = stream.try_next();
    if (!next) break;
    if (*next) {
      REQUIRE(checker.accept(**next));
      if (growing.file.size - checker.next_offset() >= kChunkBytes) continue;
      CHECK(writer.failure() == "");  // it has written all when it has ended
      stream.finish();
    } else {
      REQUIRE(code_of(next) == Code::kDeadlineExceeded);
      wait_for_event(client);
    }
  }
  CHECK(checker.is_complete());
}

TEST_CASE("a recording is followed across a restart of the daemon") {
  const Site site;
  Growing growing(site, {1, 1}, 3 * kChunkBytes, 10 * kChunkBytes + 9);
  std::optional<DaemonProcess> daemon = site.start();
  Client client = connect_to(*daemon, {.streams = 2, .slots_per_stream = 4, .resume = kForEver});
  Stream stream = open_stream(client, growing.request());
  Stream told = open_stream(client, growing.request());
  ChunkChecker checker(growing.file, 0, growing.file.size);
  ChunkChecker told_checker(growing.file, 0, growing.file.size);
  require_chunks(stream, checker, 3);
  require_chunks(told, told_checker, 3);
  require_nothing_yet(stream);
  daemon->kill();
  growing.grow(5 * kChunkBytes);
  require_nothing_yet(told);
  daemon.emplace(site.start());
  require_chunks(stream, checker, 2);
  require_nothing_yet(stream);
  daemon->kill();
  growing.grow(growing.file.size);
  told.finish();  // while there is no daemon
  daemon.emplace(site.start());
  require_chunks(told, told_checker, 8);
  CHECK_FALSE(told.next().has_value());
  CHECK(told_checker.is_complete());
  require_chunks(stream, checker, 5);
  stream.finish();
  require_chunks(stream, checker, 1);
  CHECK_FALSE(stream.next().has_value());
  CHECK(checker.is_complete());
}

TEST_CASE("nvr-cat --follow prints a recording as it grows, and ends when it has not for the time given",
          "[once]") {
  constexpr milliseconds kQuiet{1000};
  const Site site;
  Growing growing(site, {1, 1}, 100, 3'000'017);
  const DaemonProcess daemon = site.start();
  TimedWriter writer(growing, 2 * kQuiet / TimedWriter::kSteps);
  const ProgramResult result =
      run_program({path_of_cat(), "--socket", daemon.socket(), "1/1", "--follow", "1"});
  const auto ended = Clock::now();
  CHECK(result.exit == Exit{.code = 0, .signal = {}});
  CHECK(result.errors == "");
  writer.check_end(result.output.size(), ended, kQuiet);
  CHECK(growing.file.difference(0, std::as_bytes(std::span(result.output))) == "");
  const ProgramResult refused =
      run_program({path_of_cat(), "--socket", daemon.socket(), "1/1", "--follow", "-1"});
  CHECK(refused.exit == Exit{.code = 2, .signal = {}});
  CHECK_THAT(refused.errors, Catch::Contains("--follow"));
}

TEST_CASE("a recording is followed through the C interface", "[once]") {
  const Site site;
  Growing growing(site, {1, 1}, 100, kChunkBytes + 50);
  const DaemonProcess daemon = site.start();
  nvr_error* error = nullptr;
  nvr_client* const client = nvr_connect(daemon.socket().c_str(), nullptr, &error);
  REQUIRE(client != nullptr);
  nvr_request request = {};
  request.recording = growing.file.id.composite();
  request.end = NVR_TO_END;
  request.follow_ms = NVR_FOREVER;
  CHECK(nvr_open(client, &request, &error) == nullptr);  // without a size it is no request
  REQUIRE(error != nullptr);
  CHECK(nvr_error_code(error) == NVR_INVALID_ARGUMENT);
  nvr_error_free(error);
  error = nullptr;
  request.size = sizeof(request);
  nvr_stream* const stream = nvr_open(client, &request, &error);
  REQUIRE(stream != nullptr);
  nvr_chunk* chunk = nullptr;
  growing.grow(growing.file.size);
  REQUIRE(nvr_next(stream, NVR_FOREVER, &chunk, &error) == NVR_CHUNK);
  CHECK(nvr_chunk_size(chunk) == kChunkBytes);
  nvr_chunk_release(chunk);
  nvr_finish(stream);
  REQUIRE(nvr_next(stream, NVR_FOREVER, &chunk, &error) == NVR_CHUNK);
  CHECK(nvr_chunk_size(chunk) == 50);
  CHECK(growing.file.difference(kChunkBytes, {static_cast<const std::byte*>(nvr_chunk_data(chunk)), 50}) ==
        "");
  nvr_chunk_release(chunk);
  CHECK(nvr_next(stream, NVR_FOREVER, &chunk, &error) == NVR_END);
  CHECK(error == nullptr);
  nvr_stream_free(stream);
  nvr_client_free(client);
}

}  // namespace
}  // namespace nvr::test
