#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>

#include "daemon/io_priority.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {
namespace {

#ifdef NVR_BUILT_WITH_SANITIZERS
constexpr bool kIsWhole = false;
#else
constexpr bool kIsWhole = true;
#endif

// ---- Landlock: by its own numbers, since headers are older than kernels
// ----------------------------------------------------------------------

struct RulesetAttributes {
  std::uint64_t handled_access_fs;
  std::uint64_t handled_access_net;  // ABI 4
  std::uint64_t scoped;              // ABI 6
};

// The accesses to files that the kernel can refuse, all of which we have it refuse.
std::uint64_t file_accesses_of(int abi) {
  const unsigned count = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;
  return (std::uint64_t{1} << count) - 1;
}

constexpr std::uint64_t kNetBind = 1;
constexpr std::uint64_t kNetConnect = 2;

// Refuses the calling thread all that Landlock can, but for `allowed` beneath `directory` (-1: nowhere).
// Returns the ABI, or 0 when the kernel does not have it.
int landlock(int directory, std::uint64_t allowed) {
  if (!kIsWhole) return 0;
  const auto abi =
      static_cast<int>(syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION));
  if (abi <= 0) return 0;
  RulesetAttributes attributes = {.handled_access_fs = file_accesses_of(abi),
                                  .handled_access_net = abi >= 4 ? kNetBind | kNetConnect : 0,
                                  .scoped = abi >= 6 ? 3u : 0u};  // abstract sockets and signals
  const std::size_t size = abi >= 6 ? sizeof(attributes) : abi >= 4 ? 16 : 8;
  const shm::UniqueFd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, size, 0)));
  if (!ruleset) return 0;
  const landlock_path_beneath_attr rule = {.allowed_access = allowed, .parent_fd = directory};
  if (directory >= 0 &&
      syscall(SYS_landlock_add_rule, ruleset.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
    return 0;
  return syscall(SYS_landlock_restrict_self, ruleset.get(), 0) == 0 ? abi : 0;
}

// ---- Capabilities
// ------------------------------------------------------------------------------------------------------

using CapabilitySets = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

bool set_capabilities(const CapabilitySets& sets) {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return syscall(SYS_capset, &header, sets.data()) == 0;
}

CapabilitySets capabilities() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  CapabilitySets sets = {};
  syscall(SYS_capget, &header, sets.data());
  return sets;
}

// Gives up all capabilities of the calling thread but those in `kept` (of the first 32), for good.
bool keep_capabilities(std::uint32_t kept) {
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  CapabilitySets sets = {};
  sets[0].effective = sets[0].permitted = capabilities()[0].permitted & kept;
  return set_capabilities(sets);
}

// Can files of this directory be removed without any capability? Leaves none in effect.
bool is_writable_without_capabilities(int directory) {
  CapabilitySets sets = capabilities();
  for (auto& set : sets) set.effective = 0;
  return set_capabilities(sets) && faccessat(directory, ".", W_OK | X_OK, AT_EACCESS) == 0;
}

constexpr std::uint32_t bit(int capability) {
  return std::uint32_t{1} << capability;
}

// ---- The filter
// ------------------------------------------------------------------------------------------------------

// Never needed, and what a program does that is no longer ours: the process ends.
constexpr std::array kDeadly = {SCMP_SYS(execve),
                                SCMP_SYS(execveat),
                                SCMP_SYS(ptrace),
                                SCMP_SYS(process_vm_readv),
                                SCMP_SYS(process_vm_writev),
                                SCMP_SYS(mount),
                                SCMP_SYS(umount2),
                                SCMP_SYS(move_mount),
                                SCMP_SYS(open_tree),
                                SCMP_SYS(fsopen),
                                SCMP_SYS(pivot_root),
                                SCMP_SYS(chroot),
                                SCMP_SYS(setns),
                                SCMP_SYS(unshare),
                                SCMP_SYS(init_module),
                                SCMP_SYS(finit_module),
                                SCMP_SYS(kexec_load),
                                SCMP_SYS(bpf),
                                SCMP_SYS(perf_event_open),
                                SCMP_SYS(keyctl),
                                SCMP_SYS(open_by_handle_at),
                                SCMP_SYS(userfaultfd),
                                SCMP_SYS(reboot),
                                SCMP_SYS(swapon)};

// What both engines do without looking at the arguments.
constexpr std::array kNeeded = {
    // Files and memory.
    SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(preadv2),
    SCMP_SYS(sendfile), SCMP_SYS(close), SCMP_SYS(close_range), SCMP_SYS(openat2), SCMP_SYS(fstat),
    SCMP_SYS(newfstatat), SCMP_SYS(lstat), SCMP_SYS(statx), SCMP_SYS(lseek), SCMP_SYS(fadvise64),
    SCMP_SYS(mincore), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk),
    SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(unlink), SCMP_SYS(unlinkat),
    // Clients.
    SCMP_SYS(accept4), SCMP_SYS(getsockopt), SCMP_SYS(recvmsg), SCMP_SYS(recvfrom), SCMP_SYS(sendmsg),
    SCMP_SYS(sendto), SCMP_SYS(shutdown), SCMP_SYS(pidfd_open), SCMP_SYS(eventfd2), SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(futex),
    // Time, signals, the process itself.
    SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getuid),
    SCMP_SYS(geteuid), SCMP_SYS(getrandom), SCMP_SYS(sysinfo), SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity), SCMP_SYS(getcpu), SCMP_SYS(exit), SCMP_SYS(exit_group)};

constexpr std::array kNeededByRing = {SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register)};

// fcntl's commands: a segment's seals, and whether a client still has it.
constexpr std::array kFcntlCommands = {F_SETLEASE, F_ADD_SEALS, F_GET_SEALS, F_GETFD, F_GETFL};

class Filter {
 public:
  Filter() : context_(seccomp_init(SCMP_ACT_ERRNO(EPERM))) {
    if (!context_) error_ = ENOMEM;
  }

  template <class... Conditions>
  void add(std::uint32_t action, int call, Conditions... conditions) {
    if (error_ != 0) return;
    const std::array<scmp_arg_cmp, sizeof...(conditions)> all = {conditions...};
    error_ = -seccomp_rule_add_array(context_.get(), action, call, all.size(), all.data());
  }
  template <class... Conditions>
  void allow(int call, Conditions... conditions) {
    add(SCMP_ACT_ALLOW, call, conditions...);
  }
  // On all threads. 0 or an errno.
  [[nodiscard]] int load() {
    if (error_ != 0) return error_;
    seccomp_attr_set(context_.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_LOG, 1);       // as far as the kernel can
    seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);  // likewise: a search tree, not a list
    error_ = -seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_TSYNC, 1);
    return error_ != 0 ? error_ : -seccomp_load(context_.get());
  }

 private:
  struct Release {
    void operator()(void* context) const { seccomp_release(context); }
  };
  std::unique_ptr<void, Release> context_;
  int error_ = 0;
};

// The argument's bits in `mask` are those of `value`.
scmp_arg_cmp has(unsigned argument, std::uint64_t mask, std::uint64_t value) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}
// The lower half of the argument, which is what the kernel looks at where it takes an int.
scmp_arg_cmp is(unsigned argument, std::uint32_t value) {
  return has(argument, UINT32_MAX, value);
}

}  // namespace

bool sandbox_is_whole() {
  return kIsWhole;
}

Confinement confine_disk_thread(int directory) {
  Confinement done;
  // Directories, too: that one in a recording's place is no recording is told after it was opened.
  done.landlock_abi = landlock(directory, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR);
  if ((capabilities()[0].effective & bit(CAP_DAC_READ_SEARCH)) != 0) done.kept = "CAP_DAC_READ_SEARCH";
  done.drops_all = keep_capabilities(bit(CAP_DAC_READ_SEARCH));
  return done;
}

Confinement confine_control_thread(const std::string& socket_path) {
  Confinement done;
  if (socket_path.empty()) {
    done.drops_all = keep_capabilities(0);
    done.landlock_abi = landlock(-1, 0);
    return done;
  }
  const auto slash = socket_path.rfind('/');
  const std::string path = slash == std::string::npos ? "." : socket_path.substr(0, slash + 1);
  const shm::UniqueFd directory(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  // Root's daemon in a directory of another user: without this one its socket would stay behind.
  const bool could_write = (capabilities()[0].effective & bit(CAP_DAC_OVERRIDE)) != 0;
  if (could_write && !is_writable_without_capabilities(directory.get())) done.kept = "CAP_DAC_OVERRIDE";
  done.drops_all = keep_capabilities(done.kept != nullptr ? bit(CAP_DAC_OVERRIDE) : 0);
  if (directory) done.landlock_abi = landlock(directory.get(), LANDLOCK_ACCESS_FS_REMOVE_FILE);
  return done;
}

Confinement confine_helper_thread() {
  Confinement done;
  done.drops_all = keep_capabilities(0);
  done.landlock_abi = landlock(-1, 0);
  return done;
}

Confinement weaker_of(const Confinement& one, const Confinement& other) {
  return {.landlock_abi = std::min(one.landlock_abi, other.landlock_abi),
          .drops_all = one.drops_all && other.drops_all,
          .kept = one.kept != nullptr ? one.kept : other.kept};
}

int filter_system_calls(const FilterOptions& options) {
  if (!kIsWhole) return EOPNOTSUPP;
  Filter filter;
  for (const int call : kDeadly) filter.add(SCMP_ACT_KILL_PROCESS, call);
  for (const int call : kNeeded) filter.allow(call);
  constexpr int kCachestat = 451;  // which libseccomp does not know yet
  filter.allow(kCachestat);
  // Segments are reopened through /proc; nothing is ever created. Nothing becomes code.
  filter.allow(SCMP_SYS(openat), has(2, O_CREAT | (O_TMPFILE & ~O_DIRECTORY), 0));
  filter.allow(SCMP_SYS(mmap), has(2, PROT_EXEC, 0));
  filter.allow(SCMP_SYS(mprotect), has(2, PROT_EXEC, 0));
  for (const int command : kFcntlCommands)
    filter.allow(SCMP_SYS(fcntl), is(1, static_cast<std::uint32_t>(command)));
  filter.allow(SCMP_SYS(ioctl), is(1, FS_IOC_FIEMAP));
  filter.allow(SCMP_SYS(ioprio_set), is(0, IoPriority::kWhoProcess), is(1, 0));  // of the thread itself
  filter.allow(SCMP_SYS(setsockopt), is(1, SOL_SOCKET));
  filter.allow(SCMP_SYS(tgkill), is(0, static_cast<std::uint32_t>(getpid())));  // raise() and abort()
  if (options.notifies) filter.allow(SCMP_SYS(socket), is(0, AF_UNIX), has(1, 0xf, SOCK_DGRAM));
  if (options.io_uring)
    for (const int call : kNeededByRing) filter.allow(call);
  return filter.load();
}

std::string describe_sandbox(const Confinement& control, const Confinement& disk, const std::string& engine,
                             int filter_error) {
  const bool landlocked = control.landlock_abi > 0 && disk.landlock_abi > 0;
  std::string layers =
      filter_error == 0 ? "seccomp" : std::string("no seccomp (") + strerror(filter_error) + ")";
  layers += landlocked ? ", landlock abi " + std::to_string(disk.landlock_abi) : ", no landlock";
  if (!engine.empty()) layers += ", " + engine;
  if (!control.drops_all || !disk.drops_all) return layers + ", capabilities kept";
  if (control.kept == nullptr && disk.kept == nullptr) return layers + ", no capabilities";
  layers += ", no capabilities but";
  if (disk.kept != nullptr) layers += std::string(" ") + disk.kept + " (disk thread)";
  if (control.kept != nullptr) layers += std::string(" ") + control.kept + " (control thread)";
  return layers;
}

}  // namespace nvr::daemon
