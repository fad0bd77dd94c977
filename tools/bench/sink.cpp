#include "tools/bench/sink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <new>
#include <thread>

#include "tools/bench/files.h"

namespace nvr::bench {
namespace {

struct SocketPair {
  shm::UniqueFd sender;
  shm::UniqueFd receiver;
};

Result<SocketPair> connect_pair(int listener, const sockaddr_in& address) {
  SocketPair pair;
  pair.sender = shm::UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!pair.sender ||
      connect(pair.sender.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return fail_errno(errno, "cannot connect over the loopback");
  pair.receiver = shm::UniqueFd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!pair.receiver) return fail_errno(errno, "cannot accept over the loopback");
  return pair;
}

Result<std::vector<SocketPair>> connect_pairs(std::size_t count) {
  const shm::UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (!listener || bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0)
    return fail_errno(errno, "cannot listen on the loopback");
  std::vector<SocketPair> pairs;
  for (std::size_t i = 0; i < count; ++i) {
    auto pair = connect_pair(listener.get(), address);
    if (!pair) return tl::unexpected(pair.error());
    pairs.push_back(std::move(*pair));
  }
  return pairs;
}

}  // namespace

void Sink::Unmap::operator()(State* state) const {
  munmap(state, sizeof(State));
}

void Sink::drain(int socket, State& state) {
  constexpr std::size_t kAtOnce = 1U << 20;
  std::vector<std::byte> chunk(kChunkBytes);
  pollfd readable = {.fd = socket, .events = POLLIN, .revents = 0};
  for (;;) {
    if (poll(&readable, 1, -1) < 0) continue;
    // What has come was sent after `reads` was set.
    const bool reads = state.reads;
    const ssize_t got = reads ? recv(socket, chunk.data(), chunk.size(), MSG_WAITALL)
                              : recv(socket, nullptr, kAtOnce, MSG_TRUNC);
    if (got <= 0) return;
    if (reads) state.sum += sum_of_lines(std::span(chunk).first(static_cast<std::size_t>(got)));
    state.bytes += static_cast<std::uint64_t>(got);
  }
}

void Sink::serve(const std::vector<shm::UniqueFd>& sockets, State& state) {
  std::vector<std::thread> threads;
  for (const shm::UniqueFd& socket : sockets) threads.emplace_back(drain, socket.get(), std::ref(state));
  for (std::thread& thread : threads) thread.join();
}

Result<Sink> Sink::start(std::size_t connections) {
  Sink sink;
  void* const memory =
      mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "no shared memory");
  sink.state_.reset(new (memory) State);
  auto pairs = connect_pairs(connections);
  if (!pairs) return tl::unexpected(pairs.error());
  std::vector<shm::UniqueFd> receivers;
  for (SocketPair& pair : *pairs) {
    sink.sockets_.push_back(std::move(pair.sender));
    receivers.push_back(std::move(pair.receiver));
  }
  auto process = ChildProcess::fork([&] {
    sink.sockets_.clear();
    serve(receivers, *sink.state_);
    return 0;
  });
  if (!process) return tl::unexpected(process.error());
  sink.process_ = std::move(*process);
  return sink;
}

Result<void> Sink::wait_for(std::uint64_t bytes) {
  awaited_bytes_ += bytes;
  while (state_->bytes < awaited_bytes_) {
    if (process_.has_ended()) return fail(Code::kUnavailable, "the sink has ended");
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return {};
}

}  // namespace nvr::bench
