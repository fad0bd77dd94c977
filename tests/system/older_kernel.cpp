// What is newer than Linux 6.1, Debian 12's own, is denied to the daemon: each call fails as it does on a
// kernel that does not know it. The daemon serves all the same, and says what is missing where that matters.
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <thread>

#include "shm/clock.h"
#include "shm/socket.h"
#include "tests/support/client_process.h"
#include "tests/support/proc.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

// Headers are older than kernels.
constexpr int kCachestat = 451;             // Linux 6.5
constexpr std::uint32_t kPeerPidfd = 77;    // SO_PEERPIDFD: 6.5
constexpr std::uint32_t kPassRights = 83;   // SO_PASSRIGHTS: 6.16
constexpr std::uint32_t kDontCache = 0x80;  // RWF_DONTCACHE: 6.14

DeniedCall::Argument is(unsigned index, std::uint32_t value) {
  return {.index = index, .least = value, .most = value};
}
const DeniedCall kNoCachestat = {.number = kCachestat, .error = ENOSYS};
const DeniedCall kNoPeerPidfd = {
    .number = SYS_getsockopt, .error = ENOPROTOOPT, .arguments = {is(1, SOL_SOCKET), is(2, kPeerPidfd)}};
const DeniedCall kNoPassRights = {
    .number = SYS_setsockopt, .error = ENOPROTOOPT, .arguments = {is(1, SOL_SOCKET), is(2, kPassRights)}};
const DeniedCall kNoDontCache = {
    .number = SYS_preadv2,
    .error = EOPNOTSUPP,
    .arguments = {{.index = 5, .least = kDontCache, .most = kDontCache, .mask = kDontCache}}};
const DeniedCall kNoLandlock = {.number = SYS_landlock_create_ruleset, .error = EOPNOTSUPP};
const DeniedCall kNoPidfdOpen = {.number = SYS_pidfd_open,
                                 .error = ENOSYS};  // Linux 5.3, but not in every container
const DeniedCall kNoFutexWaitv = {.number = SYS_futex_waitv, .error = ENOSYS};  // Linux 5.16, likewise

const Restrictions kLinux61 = {
    .denied = {kNoCachestat, kNoPeerPidfd, kNoPassRights, kNoDontCache, kNoLandlock}};

DaemonProcess start(const Site& site, const Restrictions& restrictions) {
  DaemonOptions options = site.options();
  options.restrictions = restrictions;
  return DaemonProcess(options);
}

std::string problem_with(Client& client, const RecordingFile& file, CachePolicy cache, std::uint64_t begin) {
  Stream stream = open_stream(client, {.recording = file.id, .begin = begin, .cache = cache});
  return problem_reading(stream, file, begin, file.size);
}

std::size_t count_of(const std::string& log, std::string_view text) {
  std::size_t count = 0;
  for (auto at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++count;
  return count;
}

#ifdef NVR_TEST_OLDER_KERNEL
bool has_landlock() {
  return syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 2;
}
#endif

// What a denied call says in a process that is restricted; 0 where it works.
int errno_of(long result) {
  return result < 0 ? errno : 0;
}

// File systems without splice_read(): sendfile() is EINVAL.
TEST_CASE("a file system that knows neither sendfile nor RWF_NOWAIT is read all the same", "[mmap]") {
  constexpr std::uint32_t kNowait = 8;
  const DeniedCall no_sendfile = {.number = SYS_sendfile, .error = EINVAL};
  const DeniedCall no_nowait = {
      .number = SYS_preadv2,
      .error = EOPNOTSUPP,
      .arguments = {{.index = 5, .least = kNowait, .most = kNowait, .mask = kNowait}}};
  const Site site;
  const RecordingFile file = site.record({1, 1}, 3'000'007);
  const bool has_nowait = GENERATE(true, false);
  const char* const kind = GENERATE("solid", "rotational");
  CAPTURE(has_nowait, kind);
  DaemonOptions options = site.options({"--device-kind", kind});
  options.restrictions.denied = {no_sendfile};
  if (!has_nowait) options.restrictions.denied.push_back(no_nowait);
  const DaemonProcess daemon(options);
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 8});
  for (int i = 0; i < 3; ++i) {
    evict(file.path);
    CHECK(problem_with(client, file, CachePolicy::kNormal, 12'345) == "");
    CHECK(problem_with(client, file, CachePolicy::kDrop, 0) == "");
    CHECK(problem_with(client, file, CachePolicy::kNormal, 0) == "");
  }
}

TEST_CASE("older kernel: the calls are denied, and their neighbours are not") {
  ClientProcess child = ClientProcess::start([](const Reporter&) {
    Reporter::require(impose({.denied = {kNoCachestat, kNoPeerPidfd, kNoPassRights, kNoDontCache, kNoLandlock,
                                         kNoPidfdOpen, kNoFutexWaitv}}),
                      "cannot restrict the child");
    int ends[2];
    Reporter::require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "no sockets");
    int value = 0;
    socklen_t length = sizeof(value);
    const auto get = [&](std::uint32_t option) {
      return errno_of(getsockopt(ends[0], SOL_SOCKET, static_cast<int>(option), &value, &length));
    };
    Reporter::require(get(kPeerPidfd) == ENOPROTOOPT && get(SO_PEERCRED) != ENOPROTOOPT && get(SO_TYPE) == 0,
                      "getsockopt");
    const auto set = [&](std::uint32_t option) {
      return errno_of(setsockopt(ends[0], SOL_SOCKET, static_cast<int>(option), &value, sizeof(value)));
    };
    Reporter::require(set(kPassRights) == ENOPROTOOPT && set(SO_PASSCRED) == 0, "setsockopt");
    Reporter::require(errno_of(syscall(kCachestat, -1, nullptr, nullptr, 0)) == ENOSYS, "cachestat");
    const auto pread_with = [](std::uint32_t flags) {
      return errno_of(syscall(SYS_preadv2, -1, nullptr, 0, 0, 0, flags));
    };
    Reporter::require(pread_with(kDontCache) == EOPNOTSUPP && pread_with(kDontCache | 8) == EOPNOTSUPP &&
                          pread_with(8) == EBADF && pread_with(0) == EBADF,
                      "preadv2");
    Reporter::require(errno_of(syscall(SYS_landlock_create_ruleset, nullptr, 0, 1)) == EOPNOTSUPP,
                      "landlock");
    Reporter::require(errno_of(syscall(SYS_pidfd_open, getpid(), 0)) == ENOSYS, "pidfd_open");
    Reporter::require(errno_of(syscall(SYS_futex_waitv, nullptr, 0, 0, nullptr, 0)) == ENOSYS, "futex_waitv");
    Reporter::require(errno_of(syscall(SYS_getpid)) == 0, "getpid");
  });
  CHECK(child.failure() == "");
}

TEST_CASE("older kernel: every cache policy delivers exact bytes, and the log says once what is missing") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 4 * 1024 * 1024 + 1234);
  DaemonProcess daemon = start(site, kLinux61);
  Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 16});
  for (const std::uint64_t begin : {std::uint64_t{0}, std::uint64_t{12'345}}) {
    for (const CachePolicy cache : {CachePolicy::kNormal, CachePolicy::kDrop}) {
      CAPTURE(begin, static_cast<int>(cache));
      evict(file.path);
      CHECK(problem_with(client, file, cache, begin) == "");  // from the disk,
      CHECK(problem_with(client, file, cache, begin) == "");  // and from memory where that is left
    }
  }
  CHECK(count_of(daemon.log(), "no landlock") == 1);
  CHECK(to_string(daemon.terminate()) == "exit 0");
}

#ifdef NVR_TEST_OLDER_KERNEL
// What such a kernel answers otherwise, and not by failing.
TEST_CASE("older kernel: Landlock of ABI 2, and direct reads of files that do not tell their alignment") {
  if (!has_landlock()) return skip_or_fail("no Landlock here");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunkBytes + 1234);
  const shm::UniqueFd direct(open(file.path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  const bool has_direct_reads = direct && engine_under_test() == "io_uring";
  Restrictions restrictions = kLinux61;
  std::erase_if(restrictions.denied,
                [](const DeniedCall& call) { return call.number == SYS_landlock_create_ruleset; });
  setenv("LD_PRELOAD", NVR_TEST_OLDER_KERNEL, 1);
  const DaemonProcess daemon = start(site, restrictions);
  unsetenv("LD_PRELOAD");
  CHECK(count_of(daemon.log(), "landlock abi 2") == 1);
  Client client = connect_to(daemon, {.streams = 1, .slots_per_stream = 8});
  for (const std::uint64_t begin : {std::uint64_t{0}, std::uint64_t{512}, std::uint64_t{12'345}}) {
    CAPTURE(begin);
    evict(file.path);
    if (has_direct_reads) {
      CHECK(problem_with(client, file, CachePolicy::kDirect, begin) == "");
    } else {
      Stream stream =
          open_stream(client, {.recording = file.id, .begin = begin, .cache = CachePolicy::kDirect});
      CHECK(code_of(stream.next(in(kLongEnough))) == Code::kUnimplemented);
    }
    CHECK(problem_with(client, file, CachePolicy::kNormal, begin) == "");
  }
}
#endif

// A client whose child keeps the socket open: nothing hangs up when it dies.
struct Survivor {
  explicit Survivor(const DaemonProcess& daemon)
      : client(ClientProcess::start([&](const Reporter& reporter) {
          const Client connection = connect_to(daemon);
          const pid_t forked = fork();
          if (forked == 0) {
            for (;;) pause();
          }
          reporter.line(std::to_string(forked));
          for (;;) pause();
        })),
        child(std::stoi(client.next_line())) {}
  ~Survivor() { kill(child, SIGKILL); }
  Survivor(const Survivor&) = delete;
  Survivor& operator=(const Survivor&) = delete;

  ClientProcess client;
  pid_t child;
};

TEST_CASE("older kernel: a client's death is noticed by pidfd_open though its child keeps the socket") {
  const Site site;
  const DaemonProcess daemon = start(site, kLinux61);
  Survivor survivor(daemon);
  REQUIRE(daemon.wait_for_total("connections_now", 1));
  survivor.client.signal(SIGKILL);
  survivor.client.reap();
  CHECK(daemon.wait_for_total("connections_now", 0));
  CHECK(kill(survivor.child, 0) == 0);
}

TEST_CASE("older kernel: without any pidfd a client's death is noticed when its socket hangs up") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunkBytes);
  Restrictions restrictions = kLinux61;
  restrictions.denied.push_back(kNoPidfdOpen);
  const DaemonProcess daemon = start(site, restrictions);
  Survivor survivor(daemon);
  REQUIRE(daemon.wait_for_total("connections_now", 1));
  survivor.client.signal(SIGKILL);
  survivor.client.reap();
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  CHECK(daemon.total("connections_now") == 2);  // nothing tells it
  kill(survivor.child, SIGKILL);
  CHECK(daemon.wait_for_total("connections_now", 1));
}

TEST_CASE("older kernel: descriptors that a client passes end that client, and stay nowhere") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 20 * kChunkBytes);
  const DaemonProcess daemon = start(site, kLinux61);
  Client client = connect_to(daemon);
  CHECK(problem_reading(client, file) == "");
  const Baseline baseline(daemon.pid());
  for (int i = 0; i < 20; ++i) {
    const std::uint64_t deadline_ns = shm::now_ns() + 60 * shm::kSecond;
    const auto socket = shm::connect_socket(daemon.socket(), deadline_ns);
    REQUIRE(socket.has_value());
    const shm::UniqueFd passed(eventfd(0, EFD_CLOEXEC));
    REQUIRE(shm::send_message(socket->get(), shm::Hello{}, std::array{passed.get()}).has_value());
    REQUIRE(shm::wait_readable(socket->get(), deadline_ns).has_value());
    std::array<std::byte, 512> buffer;
    const auto answer = shm::receive_message(socket->get(), buffer);
    REQUIRE(answer.has_value());
    const auto goodbye = shm::decode_message<shm::Goodbye>(std::span(buffer).first(answer->size));
    REQUIRE(goodbye.has_value());
    CHECK(shm::to_error(*goodbye).code == Code::kInvalidArgument);
  }
  CHECK(daemon.total("violations") == 20);
  CHECK(baseline.difference_after_waiting() == "");
  CHECK(problem_reading(client, file) == "");
}

TEST_CASE("older kernel: a reader without futex_waitv gets every byte, its deadline and its cancel") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 100 * kChunkBytes + 1);
  const DaemonProcess daemon = site.start();
  ClientProcess process = ClientProcess::start([&](const Reporter&) {
    Reporter::require(impose({.denied = {kNoFutexWaitv}}), "cannot restrict the child");
    Client client = connect_to(daemon, {.streams = 2, .slots_per_stream = 2});
    Reporter::require(problem_reading(client, file).empty(), "a wrong byte");
    // A followed recording that does not grow: its reader has nothing to wake it but the deadline, or
    // cancel().
    Stream stream = open_stream(
        client, {.recording = file.id, .begin = file.size - 1, .follow = std::chrono::milliseconds::max()});
    Reporter::require(code_of(stream.next(in(std::chrono::milliseconds(30)))) == Code::kDeadlineExceeded,
                      "no deadline");
    std::thread canceller([&] { stream.cancel(); });
    const auto next = stream.next(in(kLongEnough));
    canceller.join();
    Reporter::require(code_of(next) == Code::kCancelled, "not cancelled");
  });
  CHECK(process.failure() == "");
}

}  // namespace
}  // namespace nvr::test
