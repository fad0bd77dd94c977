#include "tools/ctl/control_session.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <optional>

#include "shm/clock.h"
#include "shm/socket.h"

namespace nvr::tools {
namespace {

using shm::MessageType;

constexpr std::size_t kMaxAnswerBytes = 64U << 20;

// The pieces of an answer that have come so far.
struct Answer {
  std::string text;
  std::optional<std::uint32_t> total;  // as the first piece says
};

// Adds a piece. True once the text is whole.
Result<bool> add_part(std::span<const std::byte> message, Answer& answer) {
  constexpr std::size_t kPrefix = offsetof(shm::StatusPart, text);
  shm::StatusPart part;
  if (message.size() < kPrefix)
    return fail(Code::kFailedPrecondition, "the daemon sent an answer without its head");
  std::memcpy(static_cast<void*>(&part), message.data(), kPrefix);
  const std::size_t length = message.size() - kPrefix;
  std::string& text = answer.text;
  if (part.total > kMaxAnswerBytes || part.total != answer.total.value_or(part.total) ||
      part.offset != text.size() || length > part.total - part.offset ||
      (length == 0 && part.total != part.offset))
    return fail(Code::kFailedPrecondition, "the daemon sent an answer that does not fit together");
  answer.total = part.total;
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

std::uint64_t deadline_after(std::chrono::milliseconds timeout) {
  return shm::now_ns() + static_cast<std::uint64_t>(std::chrono::nanoseconds(timeout).count());
}

Error in_time(Error error, const std::string& path, std::chrono::milliseconds timeout) {
  if (error.code != Code::kDeadlineExceeded) return error;
  return {.code = Code::kUnavailable,
          .message = fmt::format("the daemon at {} did not answer within {} ms: is it stopped?", path,
                                 timeout.count())};
}

// Which minor version of the protocol brought the question.
constexpr std::uint16_t minor_of(MessageType question) {
  return question == MessageType::kStatus ? 0 : question == MessageType::kMetrics ? 2 : 1;
}

}  // namespace

Result<ControlSession> ControlSession::connect(std::string socket_path, std::chrono::milliseconds timeout) {
  const std::uint64_t deadline_ns = deadline_after(timeout);
  auto socket = shm::connect_socket(socket_path, deadline_ns);
  if (!socket) return tl::unexpected(socket.error());
  return over(std::move(*socket), std::move(socket_path), timeout);
}

Result<ControlSession> ControlSession::over(shm::UniqueFd socket, std::string socket_path,
                                            std::chrono::milliseconds timeout) {
  const auto greeting = shm::greet(socket.get(), 0, 0, deadline_after(timeout));
  if (!greeting) return tl::unexpected(in_time(greeting.error(), socket_path, timeout));
  if (auto sent = shm::send_message(socket.get(), shm::Ready{}); !sent) return tl::unexpected(sent.error());
  return ControlSession(std::move(socket_path), timeout, std::move(socket), greeting->welcome.version_minor);
}

template <class Request>
Result<std::string> ControlSession::ask(const Request& request) {
  if (daemon_minor_ < minor_of(request.header.type))
    return fail(
        Code::kFailedPrecondition,
        fmt::format("the daemon at {} is of an older version that does not know this question: restart "
                    "it with the new one",
                    path_));
  const std::uint64_t deadline_ns = deadline_after(timeout_);
  if (auto sent = shm::send_message(socket_.get(), request); !sent) return tl::unexpected(sent.error());
  auto answer = receive_answer(deadline_ns);
  if (!answer) return tl::unexpected(in_time(answer.error(), path_, timeout_));
  return answer;
}

template Result<std::string> ControlSession::ask(const shm::StatusRequest&);
template Result<std::string> ControlSession::ask(const shm::StreamsRequest&);
template Result<std::string> ControlSession::ask(const shm::StallLogRequest&);
template Result<std::string> ControlSession::ask(const shm::MetricsRequest&);
template Result<std::string> ControlSession::ask(const shm::DisconnectRequest&);

Result<std::string> ControlSession::receive_answer(std::uint64_t deadline_ns) {
  std::array<std::byte, shm::kMaxMessageBytes> buffer;
  Answer answer;
  for (;;) {
    const auto message = receive(socket_.get(), buffer, deadline_ns);
    if (!message) return tl::unexpected(message.error());
    const auto header = shm::check_header(*message);
    if (!header) return tl::unexpected(header.error());
    if (header->type == MessageType::kGoodbye) {
      const auto goodbye = shm::decode_message<shm::Goodbye>(*message);
      return tl::unexpected(goodbye ? shm::to_error(*goodbye) : goodbye.error());
    }
    if (header->type != MessageType::kStatusPart) continue;  // a newer daemon may say more than we understand
    const auto whole = add_part(*message, answer);
    if (!whole) return tl::unexpected(whole.error());
    if (*whole) return std::move(answer.text);
  }
}

}  // namespace nvr::tools
