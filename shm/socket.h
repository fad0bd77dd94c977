// SOCK_SEQPACKET Unix sockets: whole messages, non-blocking, with passed descriptors and the peer's
// credentials. No function here blocks, except wait_readable() until its deadline.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nvr/error.h"
#include "shm/protocol.h"
#include "shm/unique_fd.h"

namespace nvr::shm {

// Connects, close-on-exec and non-blocking. `deadline_ns` (CLOCK_MONOTONIC) bounds the wait for a listener
// whose backlog is full. NotFound/Unavailable: nobody listens; PermissionDenied; Unavailable: the deadline
// came first.
[[nodiscard]] Result<UniqueFd> connect_socket(const std::string& path, std::uint64_t deadline_ns);

// Sends one whole message. Unavailable with EAGAIN when the peer does not read, with EPIPE and its like when
// it has gone.
[[nodiscard]] Result<void> send_message(int socket, std::span<const std::byte> message,
                                        std::span<const int> descriptors = {});

// Sends a message struct of the protocol.
template <class Message>
[[nodiscard]] Result<void> send_message(int socket, const Message& message,
                                        std::span<const int> descriptors = {}) {
  return send_message(socket, std::as_bytes(std::span(&message, 1)).first(message.header.length),
                      descriptors);
}

struct ReceivedMessage {
  std::size_t size = 0;  // 0: the peer has closed
  std::vector<UniqueFd> descriptors;
};

// Takes one message; descriptors beyond `max_descriptors` are an error, and with 0 none can even arrive.
// Unavailable with EAGAIN when there is none. A message longer than `buffer` is an error.
[[nodiscard]] Result<ReceivedMessage> receive_message(int socket, std::span<std::byte> buffer,
                                                      std::size_t max_descriptors = 0);

// The header of a received message, checked against what arrived: magic, length. InvalidArgument otherwise.
[[nodiscard]] Result<MessageHeader> check_header(std::span<const std::byte> message);

// A received message as its struct: the caller has compared the type; this checks the size and copies.
template <class Message>
[[nodiscard]] Result<Message> decode_message(std::span<const std::byte> message) {
  Message decoded;
  if (message.size() != decoded.header.length)
    return fail(Code::kInvalidArgument, "a message of type " +
                                            std::to_string(static_cast<int>(decoded.header.type)) +
                                            " has the wrong length " + std::to_string(message.size()));
  std::copy(message.begin(), message.end(), reinterpret_cast<std::byte*>(&decoded));
  return decoded;
}

// Waits until the socket is readable or hung up. DeadlineExceeded after `deadline_ns` (CLOCK_MONOTONIC).
[[nodiscard]] Result<void> wait_readable(int socket, std::uint64_t deadline_ns);

// The client's half of the handshake: sends HELLO, waits for WELCOME, and for GOODBYE in its place. READY is
// the caller's, once it has mapped what came along. `descriptors` are R, W and the doorbell; none for streams
// == 0.
struct Greeting {
  Welcome welcome;
  std::vector<UniqueFd> descriptors;
};
[[nodiscard]] Result<Greeting> greet(int socket, std::uint32_t streams, std::uint32_t slots_per_stream,
                                     std::uint64_t deadline_ns);

// What GOODBYE says, as an error.
[[nodiscard]] Error to_error(const Goodbye& goodbye);

}  // namespace nvr::shm
