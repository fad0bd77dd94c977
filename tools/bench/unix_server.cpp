#include "tools/bench/unix_server.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <vector>

namespace nvr::bench {
namespace {

constexpr std::size_t kBytesPerSend = 256U << 10;

// One connection: waits for a request, or has a mapped range to send.
class UnixSender {
 public:
  UnixSender(const FileSet& files, int socket) : files_(files), socket_(socket) {}

  [[nodiscard]] int socket() const { return socket_; }
  [[nodiscard]] bool is_sending() const { return data_ != nullptr; }
  // Takes a request that is there. False: the client has gone, or asks for what is not there.
  [[nodiscard]] bool receive();
  // Sends one piece, if the socket has room for it. False: the client has gone.
  [[nodiscard]] bool send_piece();

 private:
  const FileSet& files_;
  int socket_;
  std::byte* data_ = nullptr;
  std::size_t length_ = 0;
  std::size_t sent_ = 0;
};

bool UnixSender::receive() {
  UnixRequest request;
  const ssize_t got = recv(socket_, &request, sizeof(request), MSG_WAITALL);
  if (got != static_cast<ssize_t>(sizeof(request))) return false;
  const shm::UniqueFd fd(open(files_.path(request.file).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return false;
  length_ = request.end - request.begin;
  sent_ = 0;
  void* const data =
      mmap(nullptr, length_, PROT_READ, MAP_SHARED, fd.get(), static_cast<off_t>(request.begin));
  if (data == MAP_FAILED) return false;
  data_ = static_cast<std::byte*>(data);
  return true;
}

bool UnixSender::send_piece() {
  const ssize_t sent =
      send(socket_, data_ + sent_, std::min(kBytesPerSend, length_ - sent_), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN || errno == EINTR;
  sent_ += static_cast<std::size_t>(sent);
  if (sent_ < length_) return true;
  munmap(data_, length_);
  data_ = nullptr;
  return true;
}

// Serves one connection that is ready, and waits on it for what it waits for next.
bool serve_ready(int epoll, UnixSender& sender, std::size_t index) {
  const bool was_sending = sender.is_sending();
  if (!was_sending && !sender.receive()) return false;
  if (!sender.send_piece()) return false;
  if (sender.is_sending() == was_sending) return true;
  epoll_event event = {};
  event.events = sender.is_sending() ? EPOLLOUT : EPOLLIN;
  event.data.u64 = index;
  return epoll_ctl(epoll, EPOLL_CTL_MOD, sender.socket(), &event) == 0;
}

}  // namespace

int serve_unix_sockets(const FileSet& files, std::span<const shm::UniqueFd> connections) {
  const shm::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  std::vector<UnixSender> senders;
  for (const shm::UniqueFd& connection : connections) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.u64 = senders.size();
    if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, connection.get(), &event) != 0) return 1;
    senders.emplace_back(files, connection.get());
  }
  std::array<epoll_event, 16> events;
  for (;;) {
    const int ready = epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), -1);
    if (ready < 0 && errno != EINTR) return 1;
    for (int i = 0; i < ready; ++i) {
      const auto index = static_cast<std::size_t>(events[static_cast<std::size_t>(i)].data.u64);
      if (!serve_ready(epoll.get(), senders[index], index)) return 0;
    }
  }
}

}  // namespace nvr::bench
