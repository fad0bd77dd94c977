#include "daemon/limits.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <future>
#include <system_error>

#include "daemon/metrics_server.h"
#include "shm/protocol.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {
namespace {

constexpr rlim_t kLeastStack = 256 << 10;
constexpr rlim_t kUsualStack = 8 << 20;
constexpr std::size_t kThreadStack = 2 << 20;
constexpr rlim_t kDescriptors = 64;  // of the daemon itself
constexpr rlim_t kMetricsDescriptors = MetricsServer::kMaxConnections + 8;
// A socket and a pidfd for each peer that is no client yet or never will be; and some that are about to be
// closed, or handed to a client.
constexpr rlim_t kReserve = 2 * (kMaxHandshakes + kMaxControlConnections) + 32;
constexpr std::size_t kMemoryLeft = 16 << 20;

rlim_t descriptors_of_client(rlim_t streams) {
  return DescriptorBudget::kOfConnection + streams - 1;
}

rlim_t descriptors_for(std::uint32_t clients, rlim_t streams, bool has_metrics) {
  return kDescriptors + (has_metrics ? kMetricsDescriptors : 0) + kReserve +
         clients * descriptors_of_client(streams);
}

// A part of those that are `left`. Where there are few, a quarter of them; one client can still be served.
rlim_t part_of(rlim_t left, rlim_t wanted) {
  assert(left >= DescriptorBudget::kOfConnection);
  return std::min({wanted, left / 4, left - DescriptorBudget::kOfConnection});
}

// Of those that are left once the daemon has its own.
DescriptorLimits share_out(rlim_t left, std::uint32_t max_clients, bool has_metrics) {
  if (has_metrics) left -= part_of(left, kMetricsDescriptors);
  const rlim_t reserve = part_of(left, kReserve);
  const auto peers = static_cast<std::uint32_t>(reserve / 2);
  const std::uint32_t controls = std::clamp(peers / 2, 1U, kMaxControlConnections);
  const rlim_t of_clients = left - reserve;
  return {.max_handshakes = std::clamp(peers - std::min(peers, controls), 1U, kMaxHandshakes),
          .max_controls = controls,
          .of_clients = {.most = of_clients,
                         .suffices = of_clients >= max_clients * descriptors_of_client(shm::kMaxStreams)}};
}

std::string_view remedy_for(int sys_errno) {
  switch (sys_errno) {
    case EMFILE:
      return "raise the daemon's limit on open files (RLIMIT_NOFILE: ulimit -n, LimitNOFILE=)";
    case ENFILE:
      return "raise the machine's limit on open files (sysctl fs.file-max)";
    case EFBIG:
      return "raise the daemon's limit on file sizes (RLIMIT_FSIZE: ulimit -f, LimitFSIZE=)";
    case ENOMEM:
      return "raise the daemon's limits on memory (RLIMIT_AS, RLIMIT_DATA: ulimit -v, -d, LimitAS=, "
             "LimitDATA=)";
    case EAGAIN:  // of a thread
      return "raise the daemon's limits on threads (RLIMIT_NPROC: ulimit -u, TasksMax=) and memory "
             "(RLIMIT_AS, RLIMIT_DATA: ulimit -v, -d)";
    case EROFS:
      return "name a --socket in a directory that can be written";
    default:
      return {};
  }
}

}  // namespace

Result<void> set_up_stacks() {
  // Threads would get RLIMIT_STACK: too little, or, with a large one, more than there is.
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kThreadStack);
  pthread_setattr_default_np(&attributes);
  pthread_attr_destroy(&attributes);
  rlimit limit = {};
  if (getrlimit(RLIMIT_STACK, &limit) != 0) return {};
  limit.rlim_cur = std::max(limit.rlim_cur, std::min(limit.rlim_max, kUsualStack));
  setrlimit(RLIMIT_STACK, &limit);
  if (limit.rlim_cur >= kLeastStack) return {};
  return fail(Code::kResourceExhausted, "the stack may have " + std::to_string(limit.rlim_cur) +
                                            " bytes, and " + std::to_string(kLeastStack) +
                                            " are needed: raise RLIMIT_STACK (ulimit -s, LimitSTACK=)");
}

void set_descriptor_limit(std::uint32_t max_clients, bool has_metrics) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t most = descriptors_for(max_clients, shm::kMaxStreams, has_metrics);
  limit.rlim_cur = limit.rlim_max = std::min(limit.rlim_max, most);
  setrlimit(RLIMIT_NOFILE, &limit);
}

Result<DescriptorsLeft> share_out_descriptors(std::uint32_t max_clients, bool has_metrics) {
  std::array<shm::UniqueFd, DescriptorBudget::kOfConnection> of_one_client;
  for (shm::UniqueFd& fd : of_one_client) {
    fd.reset(eventfd(0, EFD_CLOEXEC));
    if (!fd) return fail_errno(errno, "no client could be served");
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return {};
  // The kernel gives the lowest number that is free: the last of these follows all others.
  const rlim_t own = static_cast<rlim_t>(of_one_client.back().get()) + 1 - of_one_client.size();
  DescriptorsLeft left{.limits = share_out(limit.rlim_cur - own, max_clients, has_metrics), .note = {}};
  const rlim_t usual = descriptors_for(max_clients, 1, has_metrics);
  if (limit.rlim_cur < usual)
    left.note = std::to_string(limit.rlim_cur) + " files may be open (RLIMIT_NOFILE), and " +
                std::to_string(max_clients) + " clients (--max-clients) with a stream each need " +
                std::to_string(usual) + ": raise it (ulimit -n, LimitNOFILE=)";
  return left;
}

Result<void> check_proc() {
  if (access("/proc/self/fd", X_OK) == 0) return {};
  return fail(
      Code::kFailedPrecondition,
      "/proc is not mounted, and memory is shared with clients through /proc/self/fd: mount it (mount "
      "-t proc proc /proc)");
}

Result<void> check_memory_left() {
  void* const memory =
      mmap(nullptr, kMemoryLeft, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(ENOMEM, "the daemon is short of memory");
  munmap(memory, kMemoryLeft);
  return {};
}

Result<std::thread> start_thread(std::function<void()> body, std::string_view what,
                                 std::function<void()> prepare) {
  std::promise<void> prepared;
  const std::future<void> is_prepared = prepared.get_future();
  try {
    std::thread thread(
        [body = std::move(body), prepare = std::move(prepare), prepared = std::move(prepared)]() mutable {
          prepare();
          prepared.set_value();
          body();
        });
    is_prepared.wait();
    return thread;
  } catch (const std::system_error& error) {
    return fail_errno(error.code().value(), "cannot start " + std::string(what));
  }
}

Error with_remedy(Error error) {
  const std::string_view remedy = remedy_for(error.sys_errno);
  if (!remedy.empty() && error.message.find("ulimit") == std::string::npos)
    error.message.append("; ").append(remedy);
  return error;
}

}  // namespace nvr::daemon
