#include "daemon/service_manager.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <utility>

#include "shm/clock.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {
namespace {

constexpr std::uint64_t kRetryNs = 100 * shm::kMillisecond;

}  // namespace

ServiceManager::ServiceManager() {
  if (const char* const path = std::getenv("NOTIFY_SOCKET")) path_ = path;
  const bool is_usable = (path_.starts_with('/') || path_.starts_with('@')) && path_.size() > 1 &&
                         path_.size() < sizeof(sockaddr_un::sun_path);
  if (!is_usable) path_.clear();
}

void ServiceManager::tell(std::string state) {
  owed_ += std::move(state) + '\n';
  go_on();
}

void ServiceManager::tell_alive() {
  static_cast<void>(send("WATCHDOG=1"));
}

void ServiceManager::go_on() {
  if (!owed_.empty() && send(owed_)) owed_.clear();
  next_ns_ = owed_.empty() ? UINT64_MAX : shm::now_ns() + kRetryNs;
}

// False: there is no room now.
bool ServiceManager::send(const std::string& state) const {
  if (path_.empty()) return true;
  const shm::UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return errno != EMFILE && errno != ENFILE;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (path_.front() == '@') address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path_.size());
  return sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL,
                reinterpret_cast<const sockaddr*>(&address), length) >= 0 ||
         errno != EAGAIN;
}

}  // namespace nvr::daemon
