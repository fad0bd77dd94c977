#include "shm/socket.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "shm/clock.h"
#include "shm/step.h"

namespace nvr::shm {
namespace {

constexpr std::size_t kMaxDescriptors = 3;

void sleep_ms(long ms) {
  const timespec pause = {.tv_sec = 0, .tv_nsec = ms * 1'000'000};
  nanosleep(&pause, nullptr);
}

}  // namespace

Result<UniqueFd> connect_socket(const std::string& path, std::uint64_t deadline_ns) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return fail(Code::kInvalidArgument, "socket path '" + path + "' is empty or longer than " +
                                            std::to_string(sizeof(address.sun_path) - 1) + " bytes");
  std::copy(path.begin(), path.end(), address.sun_path);
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "cannot create a socket");
  while (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno == EINTR) continue;
    const int error = errno;
    if (error != EAGAIN) {
      auto failed =
          fail_errno(error, "cannot connect to " + path +
                                (error == EACCES ? " (is this user one that --allow-uid of the daemon names?)"
                                                 : " (is the daemon running?)"));
      if (error == ENOENT || error == ENOTSOCK || error == EPROTOTYPE)
        failed.value().code = Code::kUnavailable;
      return failed;
    }
    if (now_ns() >= deadline_ns)
      return fail(Code::kUnavailable, "the daemon at " + path + " accepts no connection: is it stopped?");
    sleep_ms(2);  // the backlog is full, and there is no event for its having room
  }
  return socket;
}

Result<void> send_message(int socket, std::span<const std::byte> message, std::span<const int> descriptors) {
  iovec part = {.iov_base = const_cast<std::byte*>(message.data()), .iov_len = message.size()};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxDescriptors)> control = {};
  if (!descriptors.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  while (sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return fail_errno(errno, "cannot send to the peer");
  }
  return {};
}

Result<ReceivedMessage> receive_message(int socket, std::span<std::byte> buffer,
                                        std::size_t max_descriptors) {
  iovec part = {.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxDescriptors)> control;
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (max_descriptors > 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
  ReceivedMessage received;
  // Room for as many as the kernel can deliver, so that none is left without an owner.
  if (max_descriptors > 0) received.descriptors.reserve((control.size() - CMSG_LEN(0)) / sizeof(int));
  const auto receive = [&] {
    ssize_t bytes = 0;
    do bytes = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (bytes < 0 && errno == EINTR);
    return bytes;
  };
  ssize_t size = receive();
  // A peer that closed without reading all we sent leaves a reset before its last message.
  if (size < 0 && errno == ECONNRESET) size = receive();
  if (size < 0) return fail_errno(errno, "cannot receive from the peer");

  received.size = static_cast<std::size_t>(size);
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; ++i) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      received.descriptors.emplace_back(fd);
    }
  }
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || received.descriptors.size() > max_descriptors)
    return fail(Code::kInvalidArgument,
                "the peer sent a message that is too long, or descriptors out of place");
  return received;
}

Result<MessageHeader> check_header(std::span<const std::byte> message) {
  MessageHeader header;
  if (message.size() < sizeof(header))
    return fail(Code::kInvalidArgument, "the peer sent a message without header");
  memcpy(&header, message.data(), sizeof(header));
  if (header.magic != kMagic)
    return fail(Code::kInvalidArgument, "the peer does not speak this protocol (wrong magic number)");
  if (header.length != message.size())
    return fail(Code::kInvalidArgument, "the peer sent a message whose length is not what it says");
  return header;
}

Result<void> wait_readable(int socket, std::uint64_t deadline_ns) {
  for (;;) {
    const std::uint64_t now = now_ns();
    const std::uint64_t left_ms = now >= deadline_ns ? 0 : (deadline_ns - now) / kMillisecond + 1;
    pollfd entry = {.fd = socket, .events = POLLIN, .revents = 0};
    const int ready = poll(&entry, 1, static_cast<int>(std::min<std::uint64_t>(left_ms, 1'000'000)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for the peer");
    if (ready == 0 && now_ns() >= deadline_ns)
      return fail(Code::kDeadlineExceeded, "the peer did not answer in time");
  }
}

Result<Greeting> greet(int socket, std::uint32_t streams, std::uint32_t slots_per_stream,
                       std::uint64_t deadline_ns) {
  Hello hello;
  hello.streams = streams;
  hello.slots_per_stream = slots_per_stream;
  // A daemon that refuses at once may have closed already; its GOODBYE is still there to be read.
  if (auto sent = send_message(socket, hello); !sent && sent.error().sys_errno != EPIPE)
    return tl::unexpected(sent.error());
  NVR_STEP("client.hello_sent");
  if (auto readable = wait_readable(socket, deadline_ns); !readable)
    return fail(Code::kUnavailable, "the daemon does not answer: is it stopped?");

  std::array<std::byte, 512> buffer;
  auto received = receive_message(socket, buffer, kMaxDescriptors);
  if (!received) return tl::unexpected(received.error());
  if (received->size == 0) return fail(Code::kUnavailable, "the daemon closed the connection without a word");
  NVR_STEP("client.welcome_received");
  const auto message = std::span(buffer).first(received->size);
  const auto header = check_header(message);
  if (!header) return tl::unexpected(header.error());
  if (header->type == MessageType::kGoodbye) {
    const auto goodbye = decode_message<Goodbye>(message);
    return tl::unexpected(goodbye ? to_error(*goodbye) : goodbye.error());
  }
  if (header->type != MessageType::kWelcome)
    return fail(Code::kFailedPrecondition, "the daemon answered HELLO with something else than WELCOME");
  const auto welcome = decode_message<Welcome>(message);
  if (!welcome) return tl::unexpected(welcome.error());
  if (welcome->version_major != kVersionMajor)
    return fail(Code::kFailedPrecondition, "the daemon speaks protocol version " +
                                               std::to_string(welcome->version_major) + ", this client " +
                                               std::to_string(kVersionMajor));
  if (welcome->features != hello.features || welcome->reserved != 0)
    return fail(Code::kFailedPrecondition,
                "the daemon's WELCOME has features or reserved fields set that this client did not ask for");
  if (received->descriptors.size() != (streams == 0 ? 0 : kMaxDescriptors))
    return fail(Code::kFailedPrecondition, "the daemon's WELCOME lacks its descriptors");
  return Greeting{.welcome = *welcome, .descriptors = std::move(received->descriptors)};
}

Error to_error(const Goodbye& goodbye) {
  const std::size_t length = strnlen(goodbye.text, sizeof(goodbye.text));
  return {.code = static_cast<Code>(goodbye.code), .message = std::string(goodbye.text, length)};
}

}  // namespace nvr::shm
