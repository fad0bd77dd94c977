#include "daemon/doorbells.h"

#include <errno.h>
#include <sys/epoll.h>

#include <array>

namespace nvr::daemon {

Result<Doorbells> Doorbells::create() {
  shm::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "cannot create an epoll set");
  return Doorbells(std::move(epoll));
}

Result<void> Doorbells::add(int eventfd, std::uint32_t id) const {
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLET;
  event.data.u32 = id;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, eventfd, &event) != 0)
    return fail_errno(errno, "cannot watch a doorbell");
  return {};
}

void Doorbells::remove(int eventfd) const {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, eventfd, nullptr);
}

std::uint32_t Doorbells::take(std::uint32_t (&ids)[kBatch], int timeout_ms) const {
  std::array<epoll_event, kBatch> events;
  const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < count; ++i) ids[i] = events[static_cast<std::size_t>(i)].data.u32;
  return count < 0 ? 0 : static_cast<std::uint32_t>(count);
}

}  // namespace nvr::daemon
