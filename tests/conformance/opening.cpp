// C10 to C15: opening sample files, and what may happen to them meanwhile.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>

#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr std::uint64_t kChunk = kChunkBytes;

// The error at the first next(), which is also the last.
Code first_error(Client& client, RecordingId id, std::string* message = nullptr) {
  Stream stream = open_stream(client, {.recording = id});
  const auto next = stream.next();
  if (message != nullptr && code_of(next) != Code::kOk) *message = next->error().message;
  return stream.next() ? Code::kOk : code_of(next);
}

void make_socket(const std::string& path) {
  const shm::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  REQUIRE(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
}

TEST_CASE("C10 a missing recording is NotFound at the first next") {
  const Site site;
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  std::string message;
  CHECK(first_error(client, {3, 1842086}, &message) == Code::kNotFound);
  CAPTURE(message);
  CHECK(message.find("3/1842086") != std::string::npos);
  CHECK(message.find(site.directory()) != std::string::npos);
  const auto info = client.stat({3, 1842086});
  REQUIRE_FALSE(info.has_value());
  CHECK(info.error().code == Code::kNotFound);
}

TEST_CASE("C10 a forbidden recording is PermissionDenied") {
  if (geteuid() != 0) return skip_or_fail("running the daemon as another user needs root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 1000);
  const RecordingFile open_to_all = site.record({1, 2}, 1000);
  REQUIRE(chmod(file.path.c_str(), 0600) == 0);
  REQUIRE(mkdir((site.root() / "run").c_str(), 0755) == 0);
  REQUIRE(chown((site.root() / "run").c_str(), kNobody, kNobody) == 0);
  DaemonOptions options = site.options();
  options.socket = site.root() / "run/reader.sock";
  options.uid = kNobody;
  const DaemonProcess daemon(options);
  Client client = connect_to(daemon);
  CHECK(first_error(client, file.id) == Code::kPermissionDenied);
  CHECK(problem_reading(client, open_to_all) == "");  // of another owner, but readable
}

TEST_CASE("C10 what is no regular file is FailedPrecondition and a FIFO does not block") {
  const Site site;
  const RecordingFile real = site.record({1, 1}, 1000);
  const auto path = [&](std::uint32_t recording) {
    return site.directory() + "/" + file_name_of({2, recording});
  };
  REQUIRE(mkdir(path(1).c_str(), 0755) == 0);
  REQUIRE(mkfifo(path(2).c_str(), 0644) == 0);
  REQUIRE(symlink(real.path.c_str(), path(3).c_str()) == 0);
  REQUIRE(symlink("0000000100000001", path(4).c_str()) == 0);
  REQUIRE(symlink("nowhere", path(5).c_str()) == 0);
  make_socket(path(6));
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  for (std::uint32_t recording = 1; recording <= 6; ++recording) {
    CAPTURE(recording);
    CHECK(first_error(client, {2, recording}) == Code::kFailedPrecondition);
    const auto info = client.stat({2, recording});
    REQUIRE_FALSE(info.has_value());
    CHECK(info.error().code == Code::kFailedPrecondition);
  }
  CHECK(problem_reading(client, real) == "");
}

TEST_CASE("C10 a device is FailedPrecondition", "[once]") {
  const Site site;
  const RecordingId id = {2, 7};
  const std::string path = site.directory() + "/" + file_name_of(id);
  if (mknod(path.c_str(), S_IFCHR | 0644, makedev(1, 3)) != 0)  // /dev/null
    return skip_or_fail("making a device node needs CAP_MKNOD");
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  CHECK(first_error(client, id) == Code::kFailedPrecondition);
}

TEST_CASE("C11 renaming the directory changes nothing") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 200'000);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  std::filesystem::rename(site.directory(), site.root() / "renamed");
  std::filesystem::create_directory(site.directory());
  const RecordingFile impostor = make_recording(site.directory(), file.id, file.size, file.seed + 1);
  CHECK(impostor.difference(0, file.bytes(0, 100)) != "");
  CHECK(problem_reading(client, file) == "");
  CHECK(first_error(client, {1, 2}) == Code::kNotFound);
  const RecordingFile later = make_recording(site.root() / "renamed", {1, 2}, 1000, 7);
  CHECK(problem_reading(client, later) == "");
}

TEST_CASE("C12 at most one descriptor per active stream and none after it ended") {
  const Site site;
  constexpr std::uint32_t kStreams = 8;
  std::vector<RecordingFile> files;
  for (std::uint32_t i = 0; i < kStreams; ++i) files.push_back(site.record({1, i}, 10 * kChunk));
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = kStreams, .slots_per_stream = 2});
  REQUIRE(daemon.wait_for_total("connections_now", 1));
  const Baseline baseline(daemon.pid());
  std::vector<Stream> streams;
  for (const RecordingFile& file : files) streams.push_back(open_stream(client, file));
  REQUIRE(daemon.wait_for_total("chunks", 2 * kStreams));  // all are open and wait for credit
  CHECK(descriptors_beneath(daemon.pid(), site.directory()) <= kStreams);
  for (std::uint32_t i = 0; i < kStreams; ++i) {
    CAPTURE(i);
    if (i % 2 == 0)
      CHECK(problem_reading(streams[i], files[i], 0, files[i].size) == "");
    else
      streams[i].close();
  }
  CHECK(wait_until([&] { return descriptors_beneath(daemon.pid(), site.directory()) == 0; }));
  CHECK(wait_until([&] { return mappings_beneath(daemon.pid(), site.directory()) == 0; }));
  CHECK(wait_until([&] { return descriptors_of(daemon.pid()).size() == baseline.at_start().descriptors; }));
}

TEST_CASE("C12 a thousand streams opened and dropped leave the descriptor count where it was") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 10 * kChunk);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 2});
  CHECK(problem_reading(client, file) == "");
  const Baseline baseline(daemon.pid());
  for (int i = 0; i < scaled(1000, 300); ++i) {
    const std::uint64_t begin = pick(test_random(), 0, file.size - 1);
    const RecordingId id = i % 10 == 9 ? RecordingId{9, 9} : file.id;
    Stream stream = open_stream(client, {.recording = id, .begin = begin});
    for (std::uint64_t taken = pick(test_random(), 0, 3); taken > 0; --taken)
      static_cast<void>(stream.next());
  }
  CHECK(daemon.wait_for_total("streams_open", 0));
  CHECK(baseline.difference_after_waiting() == "");
}

TEST_CASE("C13 reading begins before the first next") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunk);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 4});
  Stream stream = open_stream(client, file);
  CHECK(daemon.wait_for_total("chunks", 4));
  // They are there without waiting.
  ChunkChecker checker(file, 0, file.size);
  for (int i = 0; i < 4; ++i) {
    const auto chunk = stream.try_next();
    REQUIRE(code_of(chunk) == Code::kOk);
    REQUIRE(chunk.has_value());
    CHECK(checker.accept(**chunk));
  }
  CHECK(checker.problem() == "");
}

TEST_CASE("C14 a recording unlinked or appended to while streaming completes with its original range") {
  const Site site;
  const RecordingFile unlinked = site.record({1, 1}, 40 * kChunk + 5);
  const RecordingFile appended = site.record({1, 2}, 40 * kChunk + 5);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
  Stream first = open_stream(client, unlinked);
  Stream second = open_stream(client, appended);
  const auto info = second.info();
  REQUIRE(info.has_value());
  CHECK(info->size == appended.size);
  REQUIRE(first.info().has_value());
  REQUIRE(unlink(unlinked.path.c_str()) == 0);
  {
    const shm::UniqueFd fd(open(appended.path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    const std::string more(100'000, 'm');
    REQUIRE(write(fd.get(), more.data(), more.size()) == static_cast<ssize_t>(more.size()));
  }
  evict(appended.path);
  CHECK(problem_reading(first, unlinked, 0, unlinked.size) == "");
  CHECK(problem_reading(second, appended, 0, appended.size) == "");
  CHECK(first_error(client, unlinked.id) == Code::kNotFound);
  const auto now = client.stat(appended.id);
  REQUIRE(now.has_value());
  CHECK(now->size == appended.size + 100'000);
}

TEST_CASE("C14 a recording truncated while streaming is DataLoss for that stream only") {
  const Site site;
  std::uint32_t recording = 1;
  const RecordingFile other = site.record({2, 1}, 60 * kChunk);
  const DaemonProcess daemon = site.start();
  Client client = connect_to(daemon, {.streams = 4, .slots_per_stream = 2});
  Stream bystander = open_stream(client, other);
  const std::uint64_t begin = 777;
  for (const std::uint64_t length :
       {10 * kChunk, 10 * kChunk + 1, 10 * kChunk + 4096, 10 * kChunk + 40'000, 3 * kChunk}) {
    for (const bool cold : {false, true}) {
      CAPTURE(length, cold);
      const RecordingFile file = site.record({1, recording++}, 30 * kChunk);
      Stream stream = open_stream(client, file, begin, file.size - 5);
      REQUIRE(stream.info().has_value());
      REQUIRE(truncate(file.path.c_str(), static_cast<off_t>(length)) == 0);
      if (cold) evict(file.path);
      ChunkChecker checker(file, begin, file.size - 5);
      const Outcome outcome = drain(stream, &checker);
      CHECK(outcome.problem == "");
      REQUIRE(outcome.error.has_value());
      CAPTURE(to_string(*outcome.error));
      CHECK(outcome.error->code == Code::kDataLoss);
      CHECK(outcome.error->offset <= length);
      CHECK(outcome.error->offset >= begin + outcome.bytes);
      CHECK(outcome.error->message.find(to_string(file.id)) != std::string::npos);
      // Every chunk that lies before the new end is delivered first.
      CHECK(outcome.chunks == (length - begin) / kChunk);
    }
  }
  CHECK(problem_reading(bystander, other, 0, other.size) == "");
}

TEST_CASE("C15 a directory that cannot be served is a clear error and exit 2", "[once]") {
  const Site site;
  write_file(site.root() / "file", "no directory");
  DaemonOptions options = site.options();
  options.wait_until_ready = false;
  for (const std::string& directory : {site.root() / "missing", site.root() / "file"}) {
    CAPTURE(directory);
    options.directory = directory;
    DaemonProcess daemon(options);
    const auto exit = daemon.wait();
    REQUIRE(exit.has_value());
    CAPTURE(daemon.log());
    CHECK(to_string(*exit) == "exit 2");
    CHECK(daemon.log().find(directory) != std::string::npos);
    CHECK(daemon.log().find("ready") == std::string::npos);
  }
  CHECK_FALSE(std::filesystem::exists(site.socket()));
}

TEST_CASE("C15 a directory that cannot be read is a clear error and exit 2", "[once]") {
  if (geteuid() != 0) return skip_or_fail("running the daemon as another user needs root");
  const Site site;
  REQUIRE(chmod(site.directory().c_str(), 0700) == 0);
  DaemonOptions options = site.options();
  options.uid = kNobody;
  options.wait_until_ready = false;
  DaemonProcess daemon(options);
  const auto exit = daemon.wait();
  REQUIRE(exit.has_value());
  CAPTURE(daemon.log());
  CHECK(to_string(*exit) == "exit 2");
  CHECK(daemon.log().find(site.directory()) != std::string::npos);
  CHECK(daemon.log().find("Permission denied") != std::string::npos);
}

TEST_CASE("C15 with --wait-for-dir a directory that appears later is served", "[once]") {
  const Site site;
  DaemonOptions options = site.options({"--wait-for-dir"});
  options.directory = site.root() / "later";
  options.wait_until_ready = false;
  DaemonProcess daemon(options);
  REQUIRE(daemon.wait_for_log(options.directory));
  CHECK(daemon.is_running());
  REQUIRE(mkdir((site.root() / "staging").c_str(), 0755) == 0);
  const RecordingFile file = make_recording(site.root() / "staging", {1, 1}, 100'000, 1);
  std::filesystem::rename(site.root() / "staging", options.directory);
  REQUIRE(daemon.wait_until_ready());
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("C15 with --wait-for-dir SIGTERM ends the wait", "[once]") {
  const Site site;
  DaemonOptions options = site.options({"--wait-for-dir"});
  options.directory = site.root() / "never";
  options.wait_until_ready = false;
  DaemonProcess daemon(options);
  REQUIRE(daemon.wait_for_log(options.directory));
  CHECK(to_string(daemon.terminate()) == "exit 0");
}

}  // namespace
}  // namespace nvr::test
