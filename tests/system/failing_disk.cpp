// A disk that stalls, errs and disappears: a real block device under ext4 (tools/slow-disk), so that page
// cache, readahead, metadata and the kernel's retries are the real ones.
#include <errno.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "tests/support/laboratory.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kMiB = 1 << 20;

// As fast as it can be: what counts is how it fails.
const std::vector<std::string> kFast = {"--size",     "128M", "--seek",      "0",
                                        "--rotation", "0",    "--bandwidth", "0"};

// A failing disk with recordings on it that nothing has in memory, and a daemon. Ends well whatever has
// become of the disk: a process with a thread in an uninterruptible read is not reaped before that read ends.
struct FailingDisk {
  explicit FailingDisk(std::uint32_t count, std::uint64_t bytes = 4 * kMiB + 321) {
    REQUIRE(mkdir((disk / "samples").c_str(), 0755) == 0);
    for (std::uint32_t i = 0; i < count; ++i)
      files.push_back(make_recording(disk / "samples", {1, i}, bytes, test_seed() + i));
    disk.cool();
  }
  ~FailingDisk() {
    try {
      disk.order("clear");
    } catch (const TestFailure&) {  // it was taken down, or its server has ended
    }
    daemon.reset();
  }
  FailingDisk(const FailingDisk&) = delete;
  FailingDisk& operator=(const FailingDisk&) = delete;

  DaemonProcess& start(std::vector<std::string> arguments = {}) {
    return daemon.emplace(DaemonOptions{
        .directory = disk / "samples", .socket = site / "reader.sock", .arguments = std::move(arguments)});
  }

  TempDir site;
  Laboratory disk{kFast};
  std::vector<RecordingFile> files;
  std::optional<DaemonProcess> daemon;
};

// Takes what comes until nothing comes within `limit`. The error that says so, or nothing when the stream
// ends.
std::optional<Error> take_until_stuck(Stream& stream, ChunkChecker& checker, milliseconds limit) {
  for (;;) {
    const auto before = Clock::now();
    const auto next = stream.next(in(limit));
    if (!next) return std::nullopt;
    if (*next) {
      REQUIRE(checker.accept(**next));
      continue;
    }
    CHECK(Clock::now() - before >= limit);
    CHECK(Clock::now() - before < limit + seconds(5));
    return (*next).error();
  }
}

TEST_CASE("while the disk stalls deadlines are kept and everybody is told, and then it goes on exactly") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(2);
  const DaemonProcess& daemon = lab.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
  const RecordingFile& file = lab.files[0];
  lab.disk.order("stall");
  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  REQUIRE(wait_until([&] { return client.disk_status().stuck; }));
  const auto late = take_until_stuck(stream, checker, milliseconds(1500));
  REQUIRE(late.has_value());
  CHECK(late->code == Code::kDeadlineExceeded);
  CHECK_THAT(late->message, Contains("stuck for") && Contains("1/0"));

  // The control thread has no part in it.
  const auto stall = daemon.status().at("stall");
  CHECK(stall.at("stuck") == true);
  CHECK(stall.at("recording") == "1/0");
  CHECK(stall.at("since_s").get<double>() >= 1);
  for (int i = 0; i < 20; ++i)
    CHECK(code_of(connect_to(daemon).open({.recording = file.id})->try_next()) == Code::kDeadlineExceeded);
  CHECK(daemon.wait_for_log("1/0"));
  CHECK(client.disk_status().recording == file.id);
  Stream given_up = open_stream(client, lab.files[1]);
  given_up.cancel();  // costs nothing afterwards
  CHECK(code_of(given_up.next(in(seconds(20)))) == Code::kCancelled);

  lab.disk.order("resume");
  const Outcome outcome = drain(stream, &checker);
  CHECK(outcome.problem == "");
  CHECK(checker.is_complete());
  CHECK(problem_reading(client, lab.files[1]) == "");
  CHECK(wait_until([&] { return !client.disk_status().stuck; }));
  CHECK(daemon.wait_for_total("streams_open", 0));
  CHECK(daemon.wait_for_total("quarantined_bytes", 0));
}

TEST_CASE("a daemon that is told to end during a stall of metadata lets its clients know") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  for (const int signal : {SIGTERM, SIGKILL}) {
    CAPTURE(signal);
    FailingDisk lab(1);
    DaemonProcess& daemon = lab.start();
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
    lab.disk.order("stall");
    Stream stream = open_stream(client, lab.files[0]);  // a cold inode: this wait cannot be interrupted
    REQUIRE(wait_until([&] { return client.disk_status().stuck; }));
    const auto before = Clock::now();
    daemon.signal(signal);
    CHECK(code_of(stream.next(in(seconds(30)))) == Code::kUnavailable);
    CHECK(Clock::now() - before < seconds(20));
    CHECK_FALSE(stream.next().has_value());
    lab.disk.order("resume");
    const auto exit = daemon.wait();  // now the kernel lets go of it
    REQUIRE(exit.has_value());
    if (signal == SIGTERM) CHECK(*exit == Exit{.code = 0, .signal = {}});
    lab.daemon.reset();
  }
}

TEST_CASE("a bad sector ends the streams that need it, there, and no others") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(2);
  const RecordingFile& file = lab.files[0];
  lab.disk.order("eio file samples/" + file_name_of(file.id) + " 2M-2052K");
  const DaemonProcess& daemon = lab.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});

  Stream stream = open_stream(client, file);
  ChunkChecker checker(file, 0, file.size);
  const Outcome outcome = drain(stream, &checker);
  CHECK(outcome.problem == "");
  REQUIRE(outcome.error.has_value());
  CHECK(outcome.error->code == Code::kDataLoss);
  CHECK(outcome.error->sys_errno == EIO);
  // The kernel gives up on the folio that the bad block is in.
  CHECK(outcome.error->offset <= 2 * kMiB);
  CHECK(outcome.error->offset > kMiB);
  CHECK(checker.next_offset() == outcome.error->offset / kChunkBytes * kChunkBytes);

  CHECK(problem_reading(client, file, 0, kMiB) == "");
  CHECK(problem_reading(client, file, 3 * kMiB, file.size) == "");
  CHECK(problem_reading(client, lab.files[1]) == "");
  CHECK(daemon.total("errors") == 1);

  lab.disk.order("clear");
  CHECK(problem_reading(client, file) == "");  // the drive has remapped it
}

TEST_CASE("a disk that has vanished is an error and not a hang, and serves again when it is back") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(3);
  DaemonProcess& daemon = lab.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 4});
  CHECK(problem_reading(client, lab.files[0]) == "");
  lab.disk.order("vanish");
  Stream stream = open_stream(client, lab.files[1]);
  ChunkChecker checker(lab.files[1], 0, lab.files[1].size);
  const Outcome outcome = drain(stream, &checker);
  CHECK(outcome.problem == "");
  REQUIRE(outcome.error.has_value());
  CHECK(outcome.error->sys_errno == EIO);
  CHECK(daemon.is_running());
  CHECK(daemon.status().at("stall").at("stuck") == false);
  lab.disk.order("clear");
  CHECK(problem_reading(client, lab.files[2]) == "");
}

TEST_CASE("a recording that is truncated or replaced on the disk costs nobody else anything") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(3);
  const DaemonProcess& daemon = lab.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 2});
  Stream truncated = open_stream(client, lab.files[0]);
  Stream replaced = open_stream(client, lab.files[1]);
  REQUIRE(truncated.info().has_value());
  REQUIRE(replaced.info().has_value());
  REQUIRE(truncate(lab.files[0].path.c_str(), 2 * kMiB + 1) == 0);
  const std::string old_path = lab.files[1].path + ".old";
  REQUIRE(rename(lab.files[1].path.c_str(), old_path.c_str()) == 0);
  const RecordingFile successor =
      make_recording(lab.disk / "samples", lab.files[1].id, kMiB, lab.files[1].seed + 1000);

  ChunkChecker checker(lab.files[0], 0, lab.files[0].size);
  const Outcome outcome = drain(truncated, &checker);
  CHECK(outcome.problem == "");
  REQUIRE(outcome.error.has_value());
  CHECK(outcome.error->code == Code::kDataLoss);
  CHECK(problem_reading(replaced, lab.files[1], 0, lab.files[1].size) ==
        "");  // what it was when it was opened
  CHECK(problem_reading(client, successor) == "");
  CHECK(problem_reading(client, lab.files[2]) == "");
}

}  // namespace
}  // namespace nvr::test
