#include "tests/support/restrictions.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

namespace nvr::test {
namespace {

// The numbers of the calls that are denied here are the same on every architecture, so the filter does not
// ask for which one the call is made.
bool deny(const DeniedCall& call) {
  std::array<sock_filter, 6> program = {
      {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
       BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call.number), 0, 3),
       BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),  // its lower half
       BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, call.from_second, 0, 1),
       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (static_cast<unsigned>(call.error) & SECCOMP_RET_DATA)),
       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
  const sock_fprog filter = {.len = program.size(), .filter = program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// From the bounding set, so that root does not get it back by executing a program, and from all others.
bool drop_ipc_lock() {
  if (prctl(PR_CAPBSET_READ, CAP_IPC_LOCK) == 1 && geteuid() == 0 &&
      prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK) != 0)
    return false;
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_IPC_LOCK, 0, 0);
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets = {};
  if (syscall(SYS_capget, &header, sets.data()) != 0) return false;
  constexpr unsigned kOthers = ~(1u << CAP_IPC_LOCK);
  sets[0].effective &= kOthers;
  sets[0].permitted &= kOthers;
  sets[0].inheritable &= kOthers;
  return syscall(SYS_capset, &header, sets.data()) == 0;
}

bool limit_locked(rlim_t bytes) {
  const rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
  return setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && drop_ipc_lock();
}

// In a mount namespace of its own.
bool replace_io_uring_disabled(const char* path) {
  return unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount(path, kIoUringDisabled, nullptr, MS_BIND, nullptr) == 0;
}

}  // namespace

bool impose(const Restrictions& restrictions) {
  if (!restrictions.io_uring_disabled.empty() &&
      !replace_io_uring_disabled(restrictions.io_uring_disabled.c_str()))
    return false;
  if (restrictions.max_locked_bytes && !limit_locked(*restrictions.max_locked_bytes)) return false;
  return !restrictions.denied || deny(*restrictions.denied);
}

}  // namespace nvr::test
