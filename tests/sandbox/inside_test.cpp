// What a thread of the daemon can still do once it is confined, tried from inside.
#include "tests/sandbox/inside.h"

#include <arpa/inet.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <thread>

#include "shm/segment.h"
#include "tests/support/proc.h"

namespace nvr::test {

void Inside::prctl_no_new_privileges() {
  Reporter::require(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
}

std::string sandbox_missing() {
  if (!daemon::sandbox_is_whole()) return "a build with sanitizers has no Landlock and no filter";
  if (syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) <= 0)
    return "no Landlock here";
  return "";
}

namespace {

long open_by_openat2(int directory, const std::string& path, std::uint64_t flags) {
  open_how how = {};
  how.flags = flags;
  how.mode = (flags & O_CREAT) != 0 ? 0600 : 0;
  return syscall(SYS_openat2, directory, path.c_str(), &how, sizeof(how));
}

struct Premises {
  Site site;
  RecordingFile file = site.record({1, 1}, 100'000);
  std::string outside = site.root() / "outside";
  std::string link = site.directory() + "/link";

  Premises() {
    write_file(outside, "secret");
    REQUIRE(symlink(outside.c_str(), link.c_str()) == 0);
  }
  void check(Role role, const std::function<void(const Inside&)>& body, bool notifies = false) const {
    ClientProcess child = ClientProcess::start([&](const Reporter&) {
      const Inside inside(site);
      inside.enter(site, role, notifies);
      body(inside);
    });
    CHECK(child.failure() == "");
  }
};

TEST_CASE("the disk thread can read recordings, and of all other files none", "[plain]") {
  if (const std::string missing = sandbox_missing(); !missing.empty()) return skip_or_fail(missing);
  const Premises here;
  ClientProcess before =
      ClientProcess::start([&](const Reporter&) {  // so that it is the sandbox that refuses
        allowed(open(here.outside.c_str(), O_RDWR), "opening it outside the sandbox");
        allowed(open(here.link.c_str(), O_RDONLY), "following the link outside the sandbox");
        allowed(open(here.file.path.c_str(), O_RDWR), "opening a recording to write outside the sandbox");
      });
  CHECK(before.failure() == "");
  here.check(Role::kDiskThread, [&](const Inside& inside) {
    const int directory = inside.directory.get();
    const std::string name = file_name_of(here.file.id);
    const long fd = open_by_openat2(directory, name, O_RDONLY);
    allowed(fd, "opening a recording");
    char byte = 0;
    allowed(pread(static_cast<int>(fd), &byte, 1, 0), "reading a recording");
    allowed(open(here.file.path.c_str(), O_RDONLY), "opening it by its path");

    for (const std::string& path :
         {here.outside, here.link, std::string("/etc/passwd"), std::string("/dev/null"),
          std::string("/proc/self/mem"), std::string("/")}) {
      refused(open(path.c_str(), O_RDONLY), EACCES, "opening " + path);
      refused(open_by_openat2(AT_FDCWD, path, O_RDONLY), EACCES, "openat2 of " + path);
    }
    refused(open_by_openat2(directory, "../outside", O_RDONLY), EACCES, "opening the file beside DIR");
    refused(open_by_openat2(directory, name, O_RDWR), EACCES, "opening a recording to write");
    refused(open_by_openat2(directory, "new", O_RDWR | O_CREAT), EACCES, "creating a recording by openat2");
    refused(openat(directory, "new", O_RDWR | O_CREAT, 0600), EPERM, "creating a recording");
    refused(unlinkat(directory, name.c_str(), 0), EACCES, "removing a recording");
    refused(truncate(here.file.path.c_str(), 0), EPERM, "truncating a recording");
    refused(rename(here.file.path.c_str(), here.outside.c_str()), EPERM, "renaming a recording");
    refused(chmod(here.file.path.c_str(), 0777), EPERM, "chmod of a recording");
  });
  CHECK(here.file.size == 100'000);
  CHECK(read_file(here.outside) == "secret");
}

TEST_CASE("the control thread can make segments and remove its socket, and open no file at all", "[plain]") {
  if (const std::string missing = sandbox_missing(); !missing.empty()) return skip_or_fail(missing);
  const Premises here;
  const TempDir other;
  const std::string elsewhere = other / "file";
  write_file(elsewhere, "");
  write_file(here.site.socket(), "in the place of a socket");
  here.check(Role::kControlThread, [&](const Inside& inside) {
    for (const auto kind : {shm::SegmentKind::kRead, shm::SegmentKind::kWrite}) {
      const auto segment = shm::OwnedSegment::create(kind, 1 << 20);
      Reporter::require(segment.has_value(), "no segment");
      Reporter::require(segment->descriptor_for_client().has_value(), "no descriptor for the client");
      Reporter::require(!segment->held_elsewhere(), "held by nobody, and yet");
    }
    refused(open(here.outside.c_str(), O_RDONLY), EACCES, "opening a file beside the socket");
    refused(open(here.file.path.c_str(), O_RDONLY), EACCES, "opening a recording");
    refused(openat(inside.directory.get(), file_name_of(here.file.id).c_str(), O_RDONLY), EACCES,
            "opening a recording beneath DIR");
    refused(open("/proc/self/mem", O_RDWR), EACCES, "opening its own memory");
    allowed(unlink(here.site.socket().c_str()), "removing the socket");
    refused(unlink(elsewhere.c_str()), EACCES, "removing a file elsewhere");
  });
  CHECK(access(here.site.socket().c_str(), F_OK) != 0);
}

TEST_CASE("no new sockets, and nothing to be done with the old ones but to serve", "[plain]") {
  if (const std::string missing = sandbox_missing(); !missing.empty()) return skip_or_fail(missing);
  const Premises here;
  for (const Role role : {Role::kDiskThread, Role::kControlThread}) {
    for (const bool notifies : {false, true}) {
      ClientProcess child = ClientProcess::start([&](const Reporter&) {
        const Inside inside(here.site);
        const int tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        const int local = socket(AF_UNIX, SOCK_STREAM, 0);
        allowed(tcp, "a TCP socket before");
        allowed(local, "a Unix socket before");
        inside.enter(here.site, role, notifies);

        refused(socket(AF_INET, SOCK_STREAM, 0), EPERM, "a TCP socket");
        refused(socket(AF_INET6, SOCK_DGRAM, 0), EPERM, "a UDP socket");
        refused(socket(AF_NETLINK, SOCK_RAW, 0), EPERM, "a netlink socket");
        refused(socket(AF_PACKET, SOCK_RAW, 0), EPERM, "a packet socket");
        refused(socket(AF_UNIX, SOCK_STREAM, 0), EPERM, "a Unix stream");
        refused(socket(AF_UNIX, SOCK_SEQPACKET, 0), EPERM, "a Unix socket like the listener");
        int pair[2];
        refused(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), EPERM, "a pair of sockets");
        const int datagrams = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (notifies)
          allowed(datagrams, "the socket of sd_notify");
        else
          refused(datagrams, EPERM, "a datagram socket");

        sockaddr_in loopback = {};
        loopback.sin_family = AF_INET;
        loopback.sin_port = htons(9);
        loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const auto* const address = reinterpret_cast<const sockaddr*>(&loopback);
        refused(connect(tcp, address, sizeof(loopback)), EPERM, "connecting by TCP");
        refused(bind(tcp, address, sizeof(loopback)), EPERM, "binding a TCP port");
        refused(listen(tcp, 1), EPERM, "listening");
        sockaddr_un path = {};
        path.sun_family = AF_UNIX;
        std::strcpy(path.sun_path, "/run/dbus/x");
        refused(connect(local, reinterpret_cast<const sockaddr*>(&path), sizeof(path)), EPERM,
                "connecting to a Unix socket");
      });
      CHECK(child.failure() == "");
    }
  }
}

TEST_CASE("what is not needed fails", "[plain]") {
  if (const std::string missing = sandbox_missing(); !missing.empty()) return skip_or_fail(missing);
  const Premises here;
  here.check(Role::kDiskThread, [&](const Inside&) {
    refused(syscall(SYS_fork), EPERM, "fork");
    refused(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), EPERM, "clone");
    refused(syscall(SYS_io_uring_setup, 8, nullptr), EPERM, "another ring");
    refused(kill(getppid(), 0), EPERM, "a signal for another process");
    refused(syscall(SYS_tgkill, getppid(), getppid(), 0), EPERM, "the same to a thread of it");
    const rlimit limit = {.rlim_cur = 1, .rlim_max = 1};
    refused(setrlimit(RLIMIT_NOFILE, &limit), EPERM, "a new limit");
    refused(setuid(0), EPERM, "setuid");
    refused(prctl(PR_SET_DUMPABLE, 1), EPERM, "becoming dumpable");
    refused(syscall(SYS_seccomp, 1, 0, nullptr), EPERM, "another filter");
    refused(syscall(SYS_pidfd_getfd, 0, 0, 0), EPERM, "another process's descriptors");
    refused(fcntl(0, F_SETOWN, 1), EPERM, "signals on input");
    const auto map = [](int protection) {
      return mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    };
    void* const memory = map(PROT_READ | PROT_WRITE);
    Reporter::require(memory != MAP_FAILED, "no memory");
    Reporter::require(map(PROT_READ | PROT_EXEC) == MAP_FAILED, "memory to execute");
    refused(mprotect(memory, 4096, PROT_READ | PROT_EXEC), EPERM, "making memory executable");
    if (engine_under_test() != "io_uring")
      refused(syscall(SYS_io_uring_enter, 0, 0, 0, 0, nullptr), EPERM, "io_uring_enter");
  });
}

TEST_CASE("what only a program does that is no longer the daemon ends it", "[plain]") {
  if (const std::string missing = sandbox_missing(); !missing.empty()) return skip_or_fail(missing);
  const Premises here;
  struct Deadly {
    const char* name;
    std::function<void()> call;
  };
  char program[] = "/bin/true";
  char* const arguments[] = {program, nullptr};
  const std::vector<Deadly> all = {
      {"execve", [&] { execve(program, arguments, nullptr); }},
      {"execveat", [&] { syscall(SYS_execveat, AT_FDCWD, program, arguments, nullptr, 0); }},
      {"ptrace", [] { ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }},
      {"process_vm_readv", [] { process_vm_readv(getpid(), nullptr, 0, nullptr, 0, 0); }},
      {"process_vm_writev", [] { process_vm_writev(getpid(), nullptr, 0, nullptr, 0, 0); }},
      {"mount", [] { mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr); }},
      {"umount2", [] { umount2("/nvr-no-such-mount", 0); }},
      {"unshare", [] { unshare(CLONE_NEWUSER); }},
      {"setns", [] { setns(-1, 0); }},
      {"chroot", [] { static_cast<void>(!chroot("/nvr-no-such-directory")); }},
      {"bpf", [] { syscall(SYS_bpf, 0, nullptr, 0); }},
      {"init_module", [] { syscall(SYS_init_module, nullptr, 0, nullptr); }}};
  for (const Deadly& deadly : all) {
    for (const Role role : {Role::kDiskThread, Role::kControlThread}) {
      CAPTURE(deadly.name);
      ClientProcess child = ClientProcess::start([&](const Reporter&) {
        const Inside inside(here.site);
        inside.enter(here.site, role);
        deadly.call();
      });
      CHECK(child.failure() == "signal " + std::to_string(SIGSYS) + " ");
    }
  }
}

TEST_CASE("the filter holds for threads that were there before it", "[plain]") {
  if (const std::string missing = sandbox_missing(); !missing.empty()) return skip_or_fail(missing);
  const Premises here;
  ClientProcess child = ClientProcess::start([&](const Reporter&) {
    const Inside inside(here.site);
    std::atomic<bool> runs = false;  // the start of a thread needs calls that the filter refuses
    std::atomic<bool> is_in_force = false;
    int error = 0;
    std::thread other([&] {
      runs = true;
      while (!is_in_force) sched_yield();
      if (socket(AF_INET, SOCK_STREAM, 0) < 0) error = errno;
    });
    while (!runs) sched_yield();
    inside.enter(here.site, Role::kControlThread);
    is_in_force = true;
    other.join();
    Reporter::require(error == EPERM, "the other thread can create sockets");
  });
  CHECK(child.failure() == "");
}

}  // namespace
}  // namespace nvr::test
