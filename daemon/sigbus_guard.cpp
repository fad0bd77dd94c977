#include "daemon/sigbus_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>

#include "daemon/page_table.h"

namespace nvr::daemon {
namespace {

// What the running copy of this thread may fault on. The handler reads it, hence volatile and
// constant-initialised.
struct Guard {
  sigjmp_buf resume;
  const std::byte* begin;
  const std::byte* end;
  const std::byte* volatile fault;
};

thread_local Guard* volatile current_guard = nullptr;

void on_sigbus(int, siginfo_t* info, void* context) {
  Guard* const guard = current_guard;
  const auto* const address = static_cast<const std::byte*>(info->si_addr);
  if (guard != nullptr && info->si_code > 0 && address >= guard->begin && address < guard->end) {
    guard->fault = address;
    // What sigreturn would have done; sigsetjmp saves no mask, which is what makes it cheap.
    pthread_sigmask(SIG_SETMASK, &static_cast<ucontext_t*>(context)->uc_sigmask, nullptr);
    siglongjmp(guard->resume, 1);
  }
  // Not ours: die of it, at the same instruction. (Sent by kill(), it is not repeated by returning, so raise
  // it.)
  signal(SIGBUS, SIG_DFL);
  if (info->si_code <= 0) raise(SIGBUS);
}

}  // namespace

void install_sigbus_handler() {
  struct sigaction action = {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

std::size_t guarded_copy(std::byte* target, std::span<const std::byte> source,
                         std::span<const std::byte> guarded) {
  Guard guard;
  guard.begin = guarded.data();
  guard.end = guarded.data() + guarded.size();
  guard.fault = nullptr;
  if (sigsetjmp(guard.resume, 0) == 0) {
    current_guard = &guard;
    memcpy(target, source.data(), source.size());
    std::atomic_signal_fence(std::memory_order_seq_cst);  // not before the copy is done
    current_guard = nullptr;
    return source.size();
  }
  current_guard = nullptr;
  const std::byte* const page = guard.fault - reinterpret_cast<std::uintptr_t>(guard.fault) % page_bytes();
  if (page <= source.data()) return 0;
  // memcpy need not go forwards, so what lies before the page that failed is not certain to be in the target:
  // copy it again. It gets shorter by at least a page each time.
  return guarded_copy(target, source.first(static_cast<std::size_t>(page - source.data())), guarded);
}

}  // namespace nvr::daemon
