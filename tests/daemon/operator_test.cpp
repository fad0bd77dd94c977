// What the daemon keeps for those who run it: the stall log, the bounds of its log, the facts of a stream.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "daemon/log_limiter.h"
#include "daemon/log_queue.h"
#include "daemon/memory_budget.h"
#include "daemon/stall_log.h"
#include "daemon/stream_facts.h"
#include "shm/unique_fd.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

namespace nvr::daemon {
namespace {

TEST_CASE("the stall log keeps the last of them, the oldest first") {
  StallLog log;
  const auto add = [&](std::uint64_t number) {
    log.add(
        {.operation = {.operation = shm::DiskOperation::kRead, .recording = number}, .error = 5, .peer = {}},
        static_cast<std::int64_t>(number));
  };
  const auto kept = [&] { return nlohmann::json::parse(log.json({})); };
  CHECK(kept()["operations"].empty());
  for (std::uint64_t i = 0; i < StallLog::kEntries + 10; ++i) add(i);
  const auto text = kept();
  CHECK(text["total"] == StallLog::kEntries + 10);
  REQUIRE(text["operations"].size() == StallLog::kEntries);
  for (std::uint64_t i = 0; i < StallLog::kEntries; ++i)
    CHECK(text["operations"][i]["recording"] == "0/" + std::to_string(i + 10));
  CHECK(text["operations"][0]["error"] == "Input/output error");
}

TEST_CASE("memory: the least limit of the cgroup, its ancestors and the machine counts") {
  const test::TempDir root;
  const auto write = [&](const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root / path).parent_path());
    std::ofstream(root / path) << text;
  };
  const std::uint64_t machine = available_memory_bytes(root / "nothing");
  CHECK(machine == std::uint64_t(sysconf(_SC_PHYS_PAGES)) * std::uint64_t(sysconf(_SC_PAGESIZE)));
  const auto mounted = [&](const std::string& at, const std::string& inside, const std::string& type) {
    return "36 35 0:31 " + inside + " " + (root / at) + " rw,relatime shared:9 - " + type + "\n";
  };

  SECTION("v2") {
    write("proc/mountinfo", mounted("v2", "/", "cgroup2 cgroup2 rw,nsdelegate"));
    write("proc/cgroup", "0::/a/b\n");
    write("v2/a/b/memory.max", "max\n");
    CHECK(available_memory_bytes(root / "proc") == machine);
    write("v2/a/memory.max", "300000000\n");
    CHECK(available_memory_bytes(root / "proc") == 300'000'000);
    write("v2/a/b/memory.max", "268435456\n");
    CHECK(available_memory_bytes(root / "proc") == 256 << 20);
  }
  SECTION("v1") {
    write("proc/mountinfo",
          mounted("v1cpu", "/", "cgroup cgroup rw,cpu") + mounted("v1", "/", "cgroup cgroup rw,memory"));
    write("proc/cgroup", "4:cpu:/c\n3:memory:/a/b\n0::/\n");
    write("v1/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    CHECK(available_memory_bytes(root / "proc") == machine);
    write("v1/a/memory.limit_in_bytes", "268435456\n");
    CHECK(available_memory_bytes(root / "proc") == 256 << 20);
  }
  SECTION("a container's cgroup, mounted as its root") {
    write("proc/mountinfo", mounted("v1", "/docker/1", "cgroup cgroup rw,memory"));
    write("proc/cgroup", "3:memory:/docker/1/deeper\n");
    write("v1/memory.limit_in_bytes", "268435456\n");
    CHECK(available_memory_bytes(root / "proc") == 256 << 20);
  }
}

TEST_CASE("a kind of line is limited by itself, and what was left out is told once") {
  LogLimiter limiter;
  const auto kind = LogKind::kRefusal;
  const std::uint64_t start = 1000 * shm::kSecond;
  std::uint64_t said = 0;
  for (int i = 0; i < 1000; ++i) said += limiter.admits(kind, start) ? 1 : 0;
  CHECK(said == LogLimiter::kBurst);
  CHECK(limiter.admits(LogKind::kConnect, start));  // another kind
  CHECK_FALSE(limiter.take_due(start));
  CHECK(limiter.next_due_ns() == start + LogLimiter::kReportNs);
  const auto left_out = limiter.take_due(limiter.next_due_ns());
  REQUIRE(left_out);
  CHECK(left_out->kind == kind);
  CHECK(left_out->lines == 1000 - LogLimiter::kBurst);
  CHECK_FALSE(limiter.take_due(UINT64_MAX));
  CHECK(limiter.next_due_ns() == UINT64_MAX);
  // From then on a line each interval.
  said = 0;
  for (std::uint64_t ms = 1; ms <= 20'000; ++ms) said += limiter.admits(kind, start + ms * shm::kMillisecond);
  CHECK(said == 20 * shm::kSecond / LogLimiter::kIntervalNs);
}

// A queue on a pipe that holds 4096 bytes.
class Pipe {
 public:
  explicit Pipe(std::size_t max_bytes) {
    int ends[2] = {-1, -1};
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    reader.reset(ends[0]);
    writer.reset(ends[1]);
    fcntl(reader.get(), F_SETFL, O_NONBLOCK);
    REQUIRE(fcntl(writer.get(), F_SETPIPE_SZ, kPipeBytes) == kPipeBytes);
    auto notice = [](std::uint64_t lost) { return "lost " + std::to_string(lost) + "\n"; };
    auto started = LogQueue::start({.fd = writer.get(), .max_bytes = max_bytes, .notice = std::move(notice)});
    REQUIRE(started);
    queue = std::move(*started);
  }
  void fill() const {
    const std::string dots(kPipeBytes, '.');
    REQUIRE(write(writer.get(), dots.data(), dots.size()) == kPipeBytes);
  }
  void take_what_filled_it() const {
    std::string dots(kPipeBytes, ' ');
    REQUIRE(read(reader.get(), dots.data(), dots.size()) == kPipeBytes);
  }
  [[nodiscard]] int unread() const {
    int bytes = 0;
    ioctl(reader.get(), FIONREAD, &bytes);
    return bytes;
  }
  [[nodiscard]] const std::string& text() {
    char bytes[1000];
    for (ssize_t count; (count = read(reader.get(), bytes, sizeof(bytes))) > 0;)
      text_.append(bytes, static_cast<std::size_t>(count));
    return text_;
  }
  [[nodiscard]] bool wait_for(const std::string& end) {
    return test::wait_until([&] { return text().ends_with(end); });
  }

  static constexpr int kPipeBytes = 4096;
  shm::UniqueFd reader;
  shm::UniqueFd writer;
  std::unique_ptr<LogQueue> queue;

 private:
  std::string text_;
};

constexpr std::chrono::milliseconds kSoon{1};
constexpr std::chrono::milliseconds kInTheEnd = test::kLongEnough;

TEST_CASE("log queue: what does not fit is lost and counted, and a notice takes its place") {
  Pipe pipe(1000);
  pipe.fill();
  int put = 0;
  while (pipe.queue->lost() < 100) {
    pipe.queue->put("line " + std::to_string(put++) + "\n");
    REQUIRE(put < 1'000);
  }
  CHECK_FALSE(pipe.queue->drain(kSoon));
  pipe.take_what_filled_it();
  REQUIRE(pipe.wait_for("\nlost 100\n"));  // no further line is needed for that
  CHECK(pipe.queue->drain(kInTheEnd));
  pipe.queue->put("after\n");
  REQUIRE(pipe.wait_for("\nafter\n"));
  std::string expected;
  for (int i = 0; i < put - 100; ++i) expected += "line " + std::to_string(i) + "\n";
  CHECK(pipe.text() == expected + "lost 100\nafter\n");
  CHECK(pipe.queue->lost() == 100);
}

TEST_CASE("log queue: once lines were lost it begins anew when half of it is free, not line by line") {
  Pipe pipe(10'000);
  pipe.fill();
  const std::string line = std::string(99, '.') + '\n';
  while (pipe.queue->lost() < 10) pipe.queue->put(line);
  pipe.take_what_filled_it();
  // Forty lines have gone to the pipe and sixty are left: more than half of what there may be.
  REQUIRE(test::wait_until([&] { return pipe.unread() == 40 * 100; }));
  pipe.queue->put("too early\n");
  CHECK(pipe.queue->lost() == 11);
  REQUIRE(pipe.wait_for("\nlost 11\n"));
  CHECK(pipe.text().find("lost") == pipe.text().rfind("lost"));
}

TEST_CASE("log queue: what cannot be written is lost, and told when writing works again") {
  Pipe pipe(1000);
  const shm::UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  const shm::UniqueFd kept(fcntl(pipe.writer.get(), F_DUPFD_CLOEXEC, 0));
  REQUIRE(dup3(full.get(), pipe.writer.get(), O_CLOEXEC) >= 0);
  pipe.queue->put("one\n");
  CHECK(pipe.queue->drain(kInTheEnd));
  pipe.queue->put("two\n");  // behind a notice, which is not to be had either
  CHECK(pipe.queue->drain(kInTheEnd));
  CHECK(pipe.queue->lost() == 2);
  REQUIRE(dup3(kept.get(), pipe.writer.get(), O_CLOEXEC) >= 0);
  pipe.queue->put("three\n");
  CHECK(pipe.queue->drain(kInTheEnd));
  CHECK(pipe.text() == "lost 2\nthree\n");
}

TEST_CASE("log queue: a descriptor that does not block is waited for") {
  Pipe pipe(10'000);
  fcntl(pipe.writer.get(), F_SETFL, O_NONBLOCK);
  std::string expected;
  for (int i = 0; i < 80; ++i) {  // twice as much as the pipe holds
    expected += "line " + std::to_string(i) + std::string(90, '.') + "\n";
    pipe.queue->put("line " + std::to_string(i) + std::string(90, '.') + "\n");
  }
  CHECK_FALSE(pipe.queue->drain(kSoon));
  REQUIRE(test::wait_until([&] { return pipe.text().size() >= expected.size(); }));
  CHECK(pipe.text() == expected);
  CHECK(pipe.queue->lost() == 0);
}

TEST_CASE("a stream's wait is a new one when it has moved or waits for something else, and else goes on") {
  StreamFacts facts;
  CHECK(facts.snapshot().state == StreamState::kIdle);
  facts.opened({.recording = 7, .begin = 100, .end = 900}, 1000);
  facts.show(StreamState::kQueued, StreamWait::kQueue, 100, 1000);
  facts.show(StreamState::kReading, StreamWait::kDisk, 100, 2000);
  facts.show(StreamState::kReading, StreamWait::kDisk, 100, 3000);
  auto seen = facts.snapshot();
  CHECK(seen.state == StreamState::kReading);
  CHECK(seen.wait == StreamWait::kDisk);
  CHECK(seen.since_ns == 2000);
  CHECK(seen.position == 100);
  CHECK(seen.end == 900);
  facts.show(StreamState::kReading, StreamWait::kDisk, 200, 4000);
  seen = facts.snapshot();
  CHECK(seen.since_ns == 4000);
  CHECK(seen.position == 200);
  facts.opened({.flags = shm::kOpenToEnd, .recording = 8}, 5000);
  CHECK(facts.snapshot().end == StreamFacts::kToEnd);
}

}  // namespace
}  // namespace nvr::daemon
