#include "tools/ctl/status_query.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "shm/clock.h"
#include "shm/protocol.h"
#include "shm/socket.h"

namespace nvr::tools {
namespace {

using shm::MessageType;

constexpr std::size_t kMaxStatusBytes = 64U << 20;

// Adds a piece to what has come so far. True once the text is whole.
Result<bool> add_part(std::span<const std::byte> message, std::string& text) {
  constexpr std::size_t kPrefix = offsetof(shm::StatusPart, text);
  shm::StatusPart part;
  if (message.size() < kPrefix)
    return fail(Code::kFailedPrecondition, "the daemon sent a status message without its head");
  std::memcpy(static_cast<void*>(&part), message.data(), kPrefix);
  const std::size_t length = message.size() - kPrefix;
  if (part.total > kMaxStatusBytes || part.offset != text.size() || length > part.total - part.offset ||
      (length == 0 && part.total != part.offset))
    return fail(Code::kFailedPrecondition, "the daemon sent a status that does not fit together");
  text.append(reinterpret_cast<const char*>(message.data()) + kPrefix, length);
  return text.size() == part.total;
}

// Waits for one message and returns its bytes within `buffer`.
Result<std::span<const std::byte>> receive(int socket, std::span<std::byte> buffer,
                                           std::uint64_t deadline_ns) {
  for (;;) {
    if (auto readable = shm::wait_readable(socket, deadline_ns); !readable)
      return tl::unexpected(readable.error());
    const auto received = shm::receive_message(socket, buffer);
    if (received && received->size > 0) return buffer.first(received->size);
    if (received) return fail(Code::kUnavailable, "the daemon closed the connection without a word");
    if (received.error().sys_errno != EAGAIN) return tl::unexpected(received.error());
  }
}

Result<std::string> receive_status(int socket, std::uint64_t deadline_ns) {
  std::array<std::byte, shm::kMaxMessageBytes> buffer;
  std::string text;
  for (;;) {
    const auto message = receive(socket, buffer, deadline_ns);
    if (!message) return tl::unexpected(message.error());
    const auto header = shm::check_header(*message);
    if (!header) return tl::unexpected(header.error());
    if (header->type == MessageType::kGoodbye) {
      const auto goodbye = shm::decode_message<shm::Goodbye>(*message);
      return tl::unexpected(goodbye ? shm::to_error(*goodbye) : goodbye.error());
    }
    if (header->type != MessageType::kStatusPart) continue;  // a newer daemon may say more than we understand
    const auto whole = add_part(*message, text);
    if (!whole) return tl::unexpected(whole.error());
    if (*whole) return text;
  }
}

Result<std::string> ask(const std::string& socket_path, std::uint64_t deadline_ns) {
  const auto socket = shm::connect_socket(socket_path, deadline_ns);
  if (!socket) return tl::unexpected(socket.error());
  const auto greeting = shm::greet(socket->get(), 0, 0, deadline_ns);
  if (!greeting) return tl::unexpected(greeting.error());
  if (auto sent = shm::send_message(socket->get(), shm::Ready{}); !sent) return tl::unexpected(sent.error());
  if (auto sent = shm::send_message(socket->get(), shm::StatusRequest{}); !sent)
    return tl::unexpected(sent.error());
  return receive_status(socket->get(), deadline_ns);
}

}  // namespace

Result<std::string> query_status(const std::string& socket_path, std::chrono::milliseconds timeout) {
  const auto timeout_ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(timeout).count());
  auto status = ask(socket_path, shm::now_ns() + timeout_ns);
  if (!status && status.error().code == Code::kDeadlineExceeded)
    return fail(Code::kUnavailable,
                fmt::format("the daemon at {} did not answer within {} ms: is it stopped?", socket_path,
                            timeout.count()));
  return status;
}

}  // namespace nvr::tools
