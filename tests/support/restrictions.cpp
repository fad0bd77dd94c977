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

// A filter that is being written, in memory of its own: nothing may be allocated here.
class Filter {
 public:
  // The numbers of the calls that are denied here are the same on every architecture, so the filter does not
  // ask for which one the call is made.
  void deny(const DeniedCall& call) {
    jumps_ = 0;
    load(offsetof(seccomp_data, nr));
    leave_unless(BPF_JEQ, static_cast<unsigned>(call.number));
    for (const DeniedCall::Argument& argument : call.arguments) {
      load(offsetof(seccomp_data, args) + argument.index * sizeof(std::uint64_t));  // its lower half
      add(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, argument.mask));
      leave_unless(BPF_JGE, argument.least);
      leave_if_greater(argument.most);
    }
    add(BPF_STMT(BPF_RET | BPF_K,
                 SECCOMP_RET_ERRNO | (static_cast<unsigned>(call.error) & SECCOMP_RET_DATA)));
    for (unsigned i = 0; i < jumps_; ++i) {  // to the next call
      sock_filter& jump = program_.at(places_.at(i));
      const auto distance = static_cast<std::uint8_t>(length_ - places_.at(i) - 1);
      (jump.jt == kAway ? jump.jt : jump.jf) = distance;
    }
  }
  [[nodiscard]] bool install() {
    add(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    const sock_fprog filter = {.len = length_, .filter = program_.data()};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
  }

 private:
  static constexpr std::uint8_t kAway = UINT8_MAX;  // a jump whose target is not known yet

  void add(sock_filter instruction) { program_.at(length_++) = instruction; }
  void load(std::size_t offset) { add(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset))); }
  void leave_unless(unsigned comparison, std::uint32_t value) {
    places_.at(jumps_++) = length_;
    add(BPF_JUMP(BPF_JMP | BPF_K | comparison, value, 0, kAway));
  }
  void leave_if_greater(std::uint32_t value) {
    places_.at(jumps_++) = length_;
    add(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, value, kAway, 0));
  }

  std::array<sock_filter, 128> program_ = {};
  std::uint16_t length_ = 0;
  std::array<std::uint16_t, 16> places_ = {};  // of the jumps of one call
  unsigned jumps_ = 0;
};

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
  if (restrictions.denied.empty()) return true;
  Filter filter;
  for (const DeniedCall& call : restrictions.denied) filter.deny(call);
  return filter.install();
}

}  // namespace nvr::test
