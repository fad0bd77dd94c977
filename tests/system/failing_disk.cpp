// A disk that stalls, errs and disappears: a real block device under ext4 (tools/slow-disk), so that page
// cache, readahead, metadata and the kernel's retries are the real ones.
#include "tests/support/failing_disk.h"

#include <errno.h>
#include <sys/mount.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <thread>

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;
using std::chrono::milliseconds;
using std::chrono::seconds;

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
    CHECK(Clock::now() - before < limit + kLongEnough);
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
    daemon.signal(signal);
    CHECK(code_of(stream.next(in(kLongEnough))) == Code::kUnavailable);
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

TEST_CASE("a bad sector costs a direct read no byte before it, and is told to the block", "[io_uring]") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(1);
  const RecordingFile& file = lab.files[0];
  lab.disk.order("eio file samples/" + file_name_of(file.id) + " 1M-1028K");
  const char* const kind = GENERATE("solid", "rotational");
  CAPTURE(kind);
  const DaemonProcess& daemon = lab.start({"--device-kind", kind});
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 32});
  std::uint64_t errors = 0;
  for (const std::uint64_t begin : {std::uint64_t{0}, std::uint64_t{512}, std::uint64_t{12'345}}) {
    CAPTURE(begin);
    Stream stream =
        open_stream(client, {.recording = file.id, .begin = begin, .cache = CachePolicy::kDirect});
    ChunkChecker checker(file, begin, file.size);
    const Outcome outcome = drain(stream, &checker);
    CHECK(outcome.problem == "");
    REQUIRE(outcome.error.has_value());
    CHECK(outcome.error->code == Code::kDataLoss);
    CHECK(outcome.error->offset == kMiB);
    CHECK(outcome.bytes == (kMiB - begin) / kChunkBytes * kChunkBytes);
    CHECK(daemon.total("errors") == ++errors);
    Stream behind =
        open_stream(client, {.recording = file.id, .begin = 1028 << 10, .cache = CachePolicy::kDirect});
    CHECK(problem_reading(behind, file, 1028 << 10, file.size) == "");
  }
  // A drive takes seconds for each try at such a place.
  const std::string status = lab.disk.order("status");
  CAPTURE(status);
  CHECK(std::stoull(status.substr(status.find("read, ") + 6)) <= 5 * errors);
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

TEST_CASE(
    "with --fail-fast new opens are refused at once while the disk is silent, and served when it is back") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(3);
  const DaemonProcess& daemon = lab.start({"--fail-fast", "1"});
  Client client = connect_to(daemon, {.streams = 8, .slots_per_stream = 4});
  CHECK(problem_reading(client, lab.files[0]) == "");
  lab.disk.order("stall");
  Stream stuck = open_stream(client, lab.files[1]);
  ChunkChecker checker(lab.files[1], 0, lab.files[1].size);
  REQUIRE(wait_until([&] { return !client.open({.recording = lab.files[2].id}).has_value(); }));
  const auto check_refused = [&](Client& asks) {
    const auto refused = asks.open({.recording = lab.files[2].id});
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == Code::kUnavailable);
    CHECK_THAT(refused.error().message, Contains("--fail-fast") && Contains("stuck for"));
  };
  check_refused(client);
  for (int i = 0; i < 5; ++i) {
    Client other = connect_to(daemon);
    check_refused(other);  // at once
  }
  CHECK(daemon.status().at("stall").at("refuses_opens") == true);
  CHECK(daemon.wait_for_log("new opens are refused"));

  lab.disk.order("resume");
  const Outcome outcome = drain(stuck, &checker);  // it was there before
  CHECK(outcome.problem == "");
  CHECK(checker.is_complete());
  REQUIRE(wait_until([&] { return client.open({.recording = lab.files[2].id}).has_value(); }));
  CHECK(problem_reading(client, lab.files[2]) == "");
  CHECK(daemon.wait_for_log("new opens are served"));
}

TEST_CASE("with --fail-fast one stuck range is no silent disk, as long as the engine goes on") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(2);
  const DaemonProcess& daemon = lab.start({"--fail-fast", "2"});
  Client client = connect_to(daemon, {.streams = 8, .slots_per_stream = 4});
  CHECK(problem_reading(client, lab.files[0]) == "");
  lab.disk.order("stall file samples/" + file_name_of(lab.files[1].id));
  Stream stuck = open_stream(client, lab.files[1]);
  const auto refuses = [&] { return !client.open({.recording = lab.files[0].id}).has_value(); };
  if (engine_under_test() == "mmap") {
    CHECK(wait_until(refuses));  // for there is one disk thread, and it is stuck
  } else {
    REQUIRE(wait_until([&] { return client.disk_status().stuck_for > seconds(6); }));
    CHECK_FALSE(refuses());
    CHECK(daemon.status().at("stall").at("refuses_opens") == false);
  }
  lab.disk.order("resume");
  CHECK(problem_reading(stuck, lab.files[1], 0, lab.files[1].size) == "");
}

TEST_CASE("one stuck range holds up no other recording, as long as the engine goes on") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(9, 2 * kMiB);
  const DaemonProcess& daemon = lab.start({"--device-kind", "solid"});
  Client client = connect_to(daemon, {.streams = 9, .slots_per_stream = 8});
  lab.disk.order("stall file samples/" + file_name_of(lab.files[0].id));
  Stream stuck = open_stream(client, lab.files[0]);
  REQUIRE(wait_until([&] { return client.disk_status().stuck; }));
  std::vector<Stream> others;
  for (std::size_t i = 1; i < lab.files.size(); ++i) others.push_back(open_stream(client, lab.files[i]));
  if (engine_under_test() == "mmap")  // one thread: all wait, and hear of it
    for (Stream& other : others) CHECK(code_of(other.next(in(milliseconds(100)))) == Code::kDeadlineExceeded);
  else
    for (std::size_t i = 0; i < others.size(); ++i)
      CHECK(problem_reading(others[i], lab.files[i + 1], 0, lab.files[i + 1].size) == "");
  CHECK(client.disk_status().stuck);
  CHECK(code_of(stuck.try_next()) == Code::kDeadlineExceeded);
  // Two signals: an operation is stuck, and the disk is silent.
  const auto status = [&] { return daemon.status()["stall"]; };
  REQUIRE(wait_until([&] { return status().value("since_s", 0.0) > 2; }));
  const auto others_are_told = [&] {
    Stream other = client.open({.recording = lab.files[1].id, .cache = CachePolicy::kDirect}).value();
    CHECK(problem_reading(other, lab.files[1], 0, lab.files[1].size) == "");
    return status()["others_answered"] == true && client.disk_status().silent_for < seconds(1);
  };
  if (engine_under_test() == "mmap") {
    const auto told = status();
    CHECK(told["others_answered"] == false);
    CHECK(told.value("silent_s", 0.0) > 2);
    const DiskStatus disk = client.disk_status();
    CHECK(disk.silent_for == disk.stuck_for);
    CHECK(daemon.wait_for_log("nothing else was answered for"));
  } else {
    CHECK(wait_until(others_are_told));
    CHECK(client.disk_status().stuck_for > seconds(2));
  }
  lab.disk.order("resume");
  CHECK(problem_reading(stuck, lab.files[0], 0, lab.files[0].size) == "");
  others.clear();
  CHECK(problem_reading(client, lab.files[1]) == "");
}

TEST_CASE("a stall is warned of while it lasts and at its end, once for all streams that it holds up") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(6);
  const DaemonProcess& daemon = lab.start({"--slow-op-ms", "300"});
  Client client = connect_to(daemon, {.streams = 8, .slots_per_stream = 4});
  const auto count = [&](std::string_view text) {
    const std::string log = daemon.log();
    int found = 0;
    for (std::size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++found;
    return found;
  };
  const auto begun = Clock::now();
  lab.disk.order("stall");
  std::vector<Stream> streams;
  for (const RecordingFile& file : lab.files) streams.push_back(open_stream(client, file));
  REQUIRE(wait_until([&] { return count("has been stuck for") >= 4; }));
  lab.disk.order("resume");
  for (std::size_t i = 0; i < streams.size(); ++i)
    CHECK(problem_reading(streams[i], lab.files[i], 0, lab.files[i].size) == "");
  CHECK(daemon.wait_for_log(" took "));
  const int warnings = count("has been stuck for");
  const auto elapsed = Clock::now() - begun;
  int most = 0;  // at 0.3, 0.6, 1.2, 2.4, ... s, and not once for each stream
  for (milliseconds at{300}; at <= elapsed; at *= 2) ++most;
  CHECK(warnings <= most);
  CHECK(count(" took ") <= 3);
}

TEST_CASE("while the kernel retries a bad sector the control thread answers, and others come and go") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(3);
  const DaemonProcess& daemon = lab.start();
  lab.disk.order("eio file samples/" + file_name_of(lab.files[0].id) + " 1M-3M");
  lab.disk.order("delay 50ms");
  std::atomic<bool> over = false;
  std::atomic<int> errors = 0;
  std::thread reads_the_bad([&] {
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
    while (!over.load()) {
      Stream stream = open_stream(client, lab.files[0], 1 << 20);
      while (auto next = stream.next(in(seconds(60))))
        if (!*next) ++errors;
    }
  });
  for (int i = 0; i < 30; ++i) {
    Client passer_by = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
    CHECK(daemon.status().contains("stall"));
  }
  over = true;
  reads_the_bad.join();
  CHECK(errors > 0);
  lab.disk.order("clear");
  CHECK(daemon.wait_for_total("connections_now", 0));
}

TEST_CASE("opens beyond the bound are refused at once during a stall, and what gave up costs nothing") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(2);
  const DaemonProcess& daemon = lab.start();
  Client client = connect_to(daemon, {.streams = 16, .slots_per_stream = 2});
  lab.disk.order("stall");
  std::vector<Stream> streams;
  for (int i = 0; i < 16; ++i) streams.push_back(open_stream(client, lab.files[0]));
  const auto refused = client.open({.recording = lab.files[1].id});
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::kResourceExhausted);
  streams.clear();
  lab.disk.order("resume");
  CHECK(problem_reading(client, lab.files[1]) == "");
  CHECK(daemon.wait_for_total("streams_open", 0));
  CHECK(daemon.wait_for_total("quarantined_bytes", 0));
}

TEST_CASE("a disk that is mounted after the daemon's start is served, also after it was away for a while") {
  if (const auto reason = Laboratory::missing()) return skip_or_fail(*reason);
  FailingDisk lab(2);
  const std::string mount_point = lab.site / "mounted";
  REQUIRE(mkdir(mount_point.c_str(), 0755) == 0);
  lab.daemon.emplace(DaemonOptions{.directory = mount_point + "/samples",
                                   .socket = lab.site / "reader.sock",
                                   .arguments = {"--wait-for-dir"},
                                   .wait_until_ready = false});
  DaemonProcess& daemon = *lab.daemon;
  CHECK(daemon.wait_for_log("--wait-for-dir"));
  REQUIRE(mount((lab.disk / "").c_str(), mount_point.c_str(), nullptr, MS_BIND, nullptr) == 0);
  REQUIRE(daemon.wait_until_ready());
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  CHECK(problem_reading(client, lab.files[0]) == "");
  // The daemon holds the directory: who takes the disk away all the same must do it lazily, and whoever has
  // it mounted again finds the daemon serving it.
  CHECK(umount(mount_point.c_str()) != 0);
  REQUIRE(umount2(mount_point.c_str(), MNT_DETACH) == 0);
  CHECK(problem_reading(client, lab.files[1]) == "");
  REQUIRE(mount((lab.disk / "").c_str(), mount_point.c_str(), nullptr, MS_BIND, nullptr) == 0);
  lab.disk.cool();
  CHECK(problem_reading(client, lab.files[0]) == "");
  lab.daemon.reset();
  CHECK(umount(mount_point.c_str()) == 0);
}

}  // namespace
}  // namespace nvr::test
