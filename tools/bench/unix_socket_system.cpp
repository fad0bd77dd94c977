// "unix_socket": bytes sent by another process (unix_server.h) over a stream socket per stream, received 64
// KiB at a time. The connections stay; a request names the range.
#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "tools/bench/child_process.h"
#include "tools/bench/cpu_time.h"
#include "tools/bench/system.h"
#include "tools/bench/unix_server.h"

namespace nvr::bench {
namespace {

class UnixSocketSystem final : public System {
 public:
  UnixSocketSystem(ChildProcess server, std::vector<shm::UniqueFd> connections)
      : server_(std::move(server)), connections_(std::move(connections)), left_(connections_.size()) {}

  [[nodiscard]] std::string_view name() const override { return "unix_socket"; }

  [[nodiscard]] Result<void> open(std::size_t stream, const FileRange& range) override {
    const UnixRequest request = {.file = range.file, .begin = range.begin, .end = range.end};
    if (send(connections_[stream].get(), &request, sizeof(request), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(sizeof(request)))
      return fail_errno(errno, "cannot send to the socket server");
    left_[stream] = range.end - range.begin;
    return {};
  }

  [[nodiscard]] Result<bool> next(std::size_t stream, Tally& tally) override {
    if (left_[stream] == 0) return false;
    thread_local std::vector<std::byte> buffer(kChunkBytes);
    const std::size_t wanted = std::min<std::uint64_t>(kChunkBytes, left_[stream]);
    const ssize_t got = recv(connections_[stream].get(), buffer.data(), wanted, MSG_WAITALL);
    if (got != static_cast<ssize_t>(wanted))
      return fail_errno(got < 0 ? errno : ECONNRESET, "cannot receive from the socket server");
    left_[stream] -= wanted;
    tally.take(std::span(buffer).first(wanted));
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
    return serve_unix_sockets(setup.files, theirs);
  });
  if (!process) return tl::unexpected(process.error());
  return std::make_unique<UnixSocketSystem>(std::move(*process), std::move(ours));
}

}  // namespace nvr::bench
