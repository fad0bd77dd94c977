// "unix_socket": what a reader daemon would be that sends bytes instead of sharing memory. A server process
// of one thread sends straight from the mapped file, so that the kernel's copy into the socket is the only
// one on its side; the consumer receives 64 KiB at a time. Each stream has a connection, which stays; a
// request names the range.
#include <errno.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "shm/unique_fd.h"
#include "tools/bench/child_process.h"
#include "tools/bench/cpu_time.h"
#include "tools/bench/system.h"

namespace nvr::bench {
namespace {

constexpr std::size_t kBytesPerSend = 256U << 10;

// The server's end of a connection: waits for a request, which is a FileRange, or has a mapped range to send.
class Sender {
 public:
  Sender(const FileSet& files, int socket) : files_(files), socket_(socket) {}

  // Takes a request that is there, or sends a piece; and waits on `epoll` for what comes next. False: the
  // client has gone, or asks for what is not there.
  [[nodiscard]] bool serve(int epoll, std::uint64_t index) {
    const bool was_sending = data_ != nullptr;
    if (!was_sending && !receive()) return false;
    if (!send_piece()) return false;
    return (data_ != nullptr) == was_sending || watch(epoll, EPOLL_CTL_MOD, index);
  }
  [[nodiscard]] bool watch(int epoll, int operation, std::uint64_t index) const {
    epoll_event event = {};
    event.events = data_ != nullptr ? EPOLLOUT : EPOLLIN;
    event.data.u64 = index;
    return epoll_ctl(epoll, operation, socket_, &event) == 0;
  }

 private:
  [[nodiscard]] bool receive() {
    FileRange request;
    if (recv(socket_, &request, sizeof(request), MSG_WAITALL) != static_cast<ssize_t>(sizeof(request)))
      return false;
    const auto fd = files_.open(request.file);
    if (!fd) return false;
    length_ = request.end - request.begin;
    sent_ = 0;
    void* const data =
        mmap(nullptr, length_, PROT_READ, MAP_SHARED, fd->get(), static_cast<off_t>(request.begin));
    if (data == MAP_FAILED) return false;
    data_ = static_cast<std::byte*>(data);
    return true;
  }

  // As much as the socket has room for.
  [[nodiscard]] bool send_piece() {
    const ssize_t sent =
        send(socket_, data_ + sent_, std::min(kBytesPerSend, length_ - sent_), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    sent_ += static_cast<std::size_t>(sent);
    if (sent_ < length_) return true;
    munmap(data_, length_);
    data_ = nullptr;
    return true;
  }

  const FileSet& files_;
  int socket_;
  std::byte* data_ = nullptr;
  std::size_t length_ = 0;
  std::size_t sent_ = 0;
};

// The server's life, until a connection hangs up. Returns its exit code.
int serve(const FileSet& files, std::span<const shm::UniqueFd> connections) {
  const shm::UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  std::vector<Sender> senders;
  for (const shm::UniqueFd& connection : connections) {
    senders.emplace_back(files, connection.get());
    if (!senders.back().watch(epoll.get(), EPOLL_CTL_ADD, senders.size() - 1)) return 1;
  }
  std::array<epoll_event, 16> events;
  for (;;) {
    const int ready = epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), -1);
    if (ready < 0 && errno != EINTR) return 1;
    for (int i = 0; i < ready; ++i) {
      const std::uint64_t index = events[static_cast<std::size_t>(i)].data.u64;
      if (!senders[index].serve(epoll.get(), index)) return 0;
    }
  }
}

class UnixSocketSystem final : public System {
 public:
  UnixSocketSystem(ChildProcess server, std::vector<shm::UniqueFd> connections)
      : server_(std::move(server)), connections_(std::move(connections)), left_(connections_.size()) {}

  [[nodiscard]] std::string_view name() const override { return "unix_socket"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    if (send(connections_[stream].get(), &range, sizeof(range), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(sizeof(range)))
      return fail_errno(errno, "cannot send to the socket server");
    left_[stream] = range.end - range.begin;
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Taker& taker) override {
    if (left_[stream] == 0) return false;
    thread_local std::vector<std::byte> buffer(kChunkBytes);
    const std::size_t wanted = std::min<std::uint64_t>(kChunkBytes, left_[stream]);
    const ssize_t got = recv(connections_[stream].get(), buffer.data(), wanted, MSG_WAITALL);
    if (got != static_cast<ssize_t>(wanted))
      return fail_errno(got < 0 ? errno : ECONNRESET, "cannot receive from the socket server");
    left_[stream] -= wanted;
    taker.take(std::span(buffer).first(wanted));
    return true;
  }

  void close(std::size_t) override {}  // every range is read to its end

  [[nodiscard]] Result<std::uint64_t> other_cpu_ns() const override { return cpu_ns_of(server_.pid()); }

 private:
  ChildProcess server_;
  std::vector<shm::UniqueFd> connections_;
  std::vector<std::uint64_t> left_;  // bytes of each connection
};

}  // namespace

Result<std::unique_ptr<System>> make_unix_socket_system(const SystemSetup& setup) {
  std::vector<shm::UniqueFd> ours;
  std::vector<shm::UniqueFd> theirs;
  for (std::size_t i = 0; i < setup.streams; ++i) {
    std::array<int, 2> pair = {};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
      return fail_errno(errno, "cannot make a socket pair");
    ours.emplace_back(pair[0]);
    theirs.emplace_back(pair[1]);
  }
  auto process = ChildProcess::fork([&] {
    ours.clear();
    return serve(setup.files, theirs);
  });
  if (!process) return tl::unexpected(process.error());
  return std::make_unique<UnixSocketSystem>(std::move(*process), std::move(ours));
}

}  // namespace nvr::bench
