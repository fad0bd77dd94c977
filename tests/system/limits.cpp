// Each limit on the daemon's process: it works, or it does not start or refuses a client by a sentence that
// names the limit and how to raise it. It never dies of one later.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "tests/support/streams.h"
#include "tools/ctl/control_session.h"

namespace nvr::test {
namespace {

using Catch::Matchers::Contains;

std::function<bool()> limit(int resource, rlim_t value) {
  return [resource, value] {
    const rlimit both = {.rlim_cur = value, .rlim_max = value};
    return setrlimit(static_cast<__rlimit_resource>(resource), &both) == 0;
  };
}

bool enter_mounts_of_its_own() {
  return unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

// A cgroup with a limit on memory, beneath the one that limits this process; gone at the end.
class MemoryCgroup {
 public:
  explicit MemoryCgroup(std::uint64_t limit_bytes) {
    std::ifstream cgroups("/proc/self/cgroup");
    for (std::string line; std::getline(cgroups, line);)
      if (const auto at = line.find(":memory:"); at != std::string::npos)
        path_ = "/sys/fs/cgroup/memory" + line.substr(at + 8) + "/nvr-test-" + std::to_string(getpid());
    if (path_.empty() || mkdir(path_.c_str(), 0755) != 0) {
      path_.clear();
      return;
    }
    std::ofstream(path_ + "/memory.limit_in_bytes") << limit_bytes;
  }
  ~MemoryCgroup() {
    if (!path_.empty()) rmdir(path_.c_str());
  }
  MemoryCgroup(const MemoryCgroup&) = delete;
  MemoryCgroup& operator=(const MemoryCgroup&) = delete;

  [[nodiscard]] bool exists() const { return !path_.empty(); }
  // For a child before it becomes the daemon.
  [[nodiscard]] std::function<bool()> entry() const {
    return [processes = path_ + "/cgroup.procs"] {
      const shm::UniqueFd fd(open(processes.c_str(), O_WRONLY | O_CLOEXEC));
      return write(fd.get(), "0", 1) == 1;  // the writer
    };
  }

 private:
  std::string path_;
};

// A daemon whose process has been prepared by `before_exec`, until it is ready or has ended.
class Limited {
 public:
  explicit Limited(const Site& site, const std::function<bool()>& before_exec, std::optional<uid_t> uid = {},
                   const std::string& root = {})
      : site_(site),
        daemon_({.program = path_of_daemon(),
                 .directory = root.empty() ? site.directory() : root + "/samples",
                 .socket = root.empty() ? site.socket() : root + "/reader.sock",
                 .engine = engine_under_test(),
                 .uid = uid,
                 .before_exec = before_exec,
                 .wait_until_ready = false}) {
    if (!wait_until([&] { return daemon_.log().find("ready: ") != std::string::npos || !is_running(); }))
      throw TestFailure("neither ready nor ended: " + log());
  }

  [[nodiscard]] bool is_running() { return daemon_.is_running(); }
  [[nodiscard]] pid_t pid() const { return daemon_.pid(); }
  [[nodiscard]] std::string log() const { return daemon_.log(); }
  [[nodiscard]] Exit wait() { return daemon_.wait().value_or(Exit{}); }

  // It has not started, and its last line is why.
  void check_refused(const std::string& name, const std::string& remedy) {
    CAPTURE(log());
    CHECK(to_string(wait()) == "exit 2");
    CHECK_THAT(log(), Contains(name) && Contains(remedy) && Contains("nvr-readerd: ") &&
                          !Contains("terminate called"));
  }
  // Whatever clients did, it answers and ends as it should.
  void check_alive() {
    CAPTURE(log());
    REQUIRE(is_running());
    auto session = tools::ControlSession::connect(site_.socket(), kLongEnough);
    REQUIRE(session);
    CHECK(session->status());
    CHECK(to_string(daemon_.terminate()) == "exit 0");
  }

 private:
  const Site& site_;
  lab::DaemonProcess daemon_;
};

constexpr ConnectOptions kSmall = {.streams = 1, .slots_per_stream = 2};

TEST_CASE("limit on file sizes: a segment that is larger is refused, and a smaller one is not") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  Limited daemon(site, limit(RLIMIT_FSIZE, 1 << 20));
  for (int i = 0; i < 3; ++i) {
    const auto refused = Client::connect(site.socket());
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Code::kResourceExhausted);
    CHECK_THAT(refused.error().message, Contains("RLIMIT_FSIZE") && Contains("LimitFSIZE="));
    Client client = connect_to(site.socket(), kSmall);
    CHECK(problem_reading(client, file) == "");
  }
  daemon.check_alive();
}

// UBSan opens a pipe to see whether an object is one of its type.
TEST_CASE("limit on open files: the daemon says so at its start, or to the client, or serves", "[plain]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  int served = 0;
  int refused = 0;
  for (const rlim_t descriptors : std::initializer_list<rlim_t>{8, 12, 16, 20, 24, 32, 40}) {
    CAPTURE(descriptors);
    Limited daemon(site, limit(RLIMIT_NOFILE, descriptors));
    if (!daemon.is_running()) {
      daemon.check_refused("LimitNOFILE", "ulimit -n");
      ++refused;
      continue;
    }
    CHECK_THAT(daemon.log(), Contains("files may be open (RLIMIT_NOFILE)") && Contains("--max-clients"));
    std::vector<Client> clients;
    for (;;) {
      auto client = Client::connect(site.socket(), kSmall);
      if (client) {
        CHECK(problem_reading(*client, file) == "");
        clients.push_back(std::move(*client));
        ++served;
        REQUIRE(clients.size() < descriptors);
        continue;
      }
      CAPTURE(client.error().message);
      if (client.error().code == Code::kResourceExhausted)
        CHECK_THAT(client.error().message, Contains("RLIMIT_NOFILE") && Contains("LimitNOFILE="));
      break;
    }
    CHECK_FALSE(clients.empty());
    clients.clear();
    REQUIRE(wait_until([&] { return Client::connect(site.socket(), kSmall).has_value(); }));
    daemon.check_alive();
  }
  CHECK(served >= 2);
  CHECK(refused >= 2);
}

// Of the address space, or of private memory that can be written.
TEST_CASE("limits on memory: the daemon does not start, or refuses clients, and lives", "[plain]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  for (const int resource : {RLIMIT_AS, RLIMIT_DATA}) {
    int refusals = 0;
    for (const rlim_t mib : std::initializer_list<rlim_t>{4, 10, 20, 30, 40, 60, 100, 200, 400}) {
      if (resource == RLIMIT_AS && mib < 30) continue;  // no room for the program itself
      CAPTURE(resource, mib);
      Limited daemon(site, limit(resource, mib << 20));
      if (!daemon.is_running()) {
        daemon.check_refused("RLIMIT_DATA", "LimitAS=");
        ++refusals;
        continue;
      }
      std::vector<Client> clients;
      for (int i = 0; i < 20; ++i) {
        auto client = Client::connect(site.socket());  // 32 MiB
        if (client) {
          CHECK(problem_reading(*client, file) == "");
          clients.push_back(std::move(*client));
          continue;
        }
        CHECK(client.error().code == Code::kResourceExhausted);
        CHECK_THAT(client.error().message, Contains("RLIMIT_AS"));
        ++refusals;
      }
      for (Client& client : clients) CHECK(problem_reading(client, file) == "");
      daemon.check_alive();
    }
    CHECK(refusals > 0);
  }
}

TEST_CASE("limit on the stack: the daemon does not start, or works", "[plain]") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  for (const rlim_t kib : std::initializer_list<rlim_t>{64, 128}) {
    Limited daemon(site, limit(RLIMIT_STACK, kib << 10));
    daemon.check_refused("RLIMIT_STACK", "LimitSTACK=");
  }
  for (const rlim_t bytes : {rlim_t{256} << 10, rlim_t{1} << 40, RLIM_INFINITY}) {
    CAPTURE(bytes);
    Limited daemon(site, limit(RLIMIT_STACK, bytes));
    Client client = connect_to(site.socket());
    CHECK(problem_reading(client, file) == "");
    daemon.check_alive();
  }
}

TEST_CASE("limit on threads: the daemon does not start, or works") {
  if (geteuid() != 0) return skip_or_fail("becoming a user of one's own needs root");
  constexpr uid_t kAlone = 64'217;  // nobody else's: the limit counts all processes of a user
  const Site site;
  REQUIRE(chown(site.root().path().c_str(), kAlone, kAlone) == 0);
  const RecordingFile file = site.record({1, 1}, 300'000);
  int served = 0;
  for (const rlim_t threads : std::initializer_list<rlim_t>{1, 2, 3, 4}) {
    CAPTURE(threads);
    Limited daemon(site, limit(RLIMIT_NPROC, threads), kAlone);
    if (!daemon.is_running()) {
      daemon.check_refused("RLIMIT_NPROC", "TasksMax=");
      continue;
    }
    ++served;
    Client client = connect_to(site.socket());
    CHECK(problem_reading(client, file) == "");
    daemon.check_alive();
  }
  CHECK(served == (kSanitized ? served : 2));
}

TEST_CASE("limits on locked memory, queued signals and others: the daemon works, or does not start") {
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  for (const int resource : {RLIMIT_MEMLOCK, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_CORE}) {
    CAPTURE(resource);
    Limited daemon(site, [resource] {
      return resource == RLIMIT_MEMLOCK ? impose({.max_locked_bytes = 0}) : limit(resource, 0)();
    });
    if (resource == RLIMIT_MEMLOCK && !daemon.is_running()) {  // io_uring, which some kernels charge for
      daemon.check_refused("LimitMEMLOCK", "ulimit -l");
      continue;
    }
    Client client = connect_to(site.socket());
    CHECK(problem_reading(client, file) == "");
    daemon.check_alive();
  }
}

TEST_CASE("without /proc the daemon does not start, and says why", "[plain]") {
  if (geteuid() != 0) return skip_or_fail("mounts need root");
  const Site site;
  Limited daemon(site, [] { return enter_mounts_of_its_own() && umount2("/proc", MNT_DETACH) == 0; });
  daemon.check_refused("/proc is not mounted", "mount -t proc");
}

TEST_CASE("on a root that cannot be written the daemon works, but for its socket") {
  if (geteuid() != 0) return skip_or_fail("mounts need root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const std::string root = site.root().path();
  const auto make_read_only = [&](bool but_for_the_site) {
    return enter_mounts_of_its_own() &&
           (!but_for_the_site || mount(root.c_str(), root.c_str(), nullptr, MS_BIND, nullptr) == 0) &&
           mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0;
  };
  {
    Limited daemon(site, [&] { return make_read_only(true); });
    Client client = connect_to(site.socket());
    CHECK(problem_reading(client, file) == "");
    daemon.check_alive();
  }
  struct stat of_root = {};
  struct stat of_site = {};
  REQUIRE((stat("/", &of_root) == 0 && stat(root.c_str(), &of_site) == 0));
  if (of_root.st_dev != of_site.st_dev) return;  // it can still be written
  Limited daemon(site, [&] { return make_read_only(false); });
  daemon.check_refused("Read-only file system", "--socket");
}

TEST_CASE("with a full /tmp the daemon works") {
  if (geteuid() != 0) return skip_or_fail("mounts need root");
  const Site site;
  const RecordingFile file = site.record({1, 1}, 300'000);
  const std::string root = site.root().path();
  Limited daemon(
      site,
      [&] {
        if (!enter_mounts_of_its_own() || mount(root.c_str(), "/mnt", nullptr, MS_BIND, nullptr) != 0 ||
            mount("none", "/tmp", "tmpfs", 0, "size=4096") != 0)
          return false;
        const int fd = open("/tmp/full", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        static const char page[4096] = {};
        while (write(fd, page, sizeof(page)) > 0) {
        }
        return fd >= 0 && errno == ENOSPC;
      },
      {}, "/mnt");
  Client client = connect_to(site.socket());
  CHECK(problem_reading(client, file) == "");
  daemon.check_alive();
}

TEST_CASE("in a cgroup with little memory the daemon refuses clients, and is not killed for those it has",
          "[once]") {
  const MemoryCgroup cgroup(512 << 20);
  if (!cgroup.exists()) return skip_or_fail("no memory cgroup (v1) to be had");
  const Site site;
  const RecordingFile file = site.record({1, 1}, kChunkBytes);
  Limited daemon(site, cgroup.entry());
  std::vector<Client> clients;  // of 32 MiB and a little each; a quarter of the cgroup is 128 MiB
  std::optional<Error> refused;
  while (!refused && clients.size() < 32) {
    auto client = Client::connect(site.socket());
    if (client)
      clients.push_back(std::move(*client));
    else
      refused = client.error();
  }
  REQUIRE(refused.has_value());
  CHECK(refused->code == Code::kResourceExhausted);
  CHECK_THAT(refused->message, Contains("--total-memory"));
  CHECK(clients.size() == 3);
  CHECK(daemon.is_running());
  CHECK(problem_reading(clients.front(), file) == "");
}

}  // namespace
}  // namespace nvr::test
