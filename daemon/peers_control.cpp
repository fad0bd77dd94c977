// What control connections ask, and how they are answered. Control thread only; nothing here waits: an answer
// goes out as fast as its reader takes it, and what is left goes with its connection.
#include <sys/epoll.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "daemon/log.h"
#include "daemon/peers.h"
#include "shm/socket.h"

namespace nvr::daemon {
namespace {

using nlohmann::ordered_json;
using shm::MessageType;

// A question, judged.
struct Question {
  MessageType type{};
  std::uint32_t connection = 0;  // DISCONNECT's
};

template <class Message>
Result<Question> decoded(std::span<const std::byte> message) {
  const auto question = shm::decode_message<Message>(message);
  if (!question) return tl::unexpected(question.error());
  if constexpr (std::is_same_v<Message, shm::DisconnectRequest>) {
    if (question->reserved != 0)
      return fail(Code::kInvalidArgument, "DISCONNECT with a reserved field that is not zero");
    return Question{question->header.type, question->connection};
  }
  return Question{.type = question->header.type};
}

Result<Question> decode_question(MessageType type, std::span<const std::byte> message) {
  switch (type) {
    case MessageType::kStatus:
      return decoded<shm::StatusRequest>(message);
    case MessageType::kStreams:
      return decoded<shm::StreamsRequest>(message);
    case MessageType::kStallLog:
      return decoded<shm::StallLogRequest>(message);
    case MessageType::kMetrics:
      return decoded<shm::MetricsRequest>(message);
    case MessageType::kDisconnect:
      return decoded<shm::DisconnectRequest>(message);
    default:
      return fail(Code::kInvalidArgument,
                  "message of type " + std::to_string(static_cast<int>(type)) + " out of place");
  }
}

std::string refusal(Code code, const std::string& message) {
  return ordered_json{{"error", {{"code", static_cast<int>(code)}, {"message", message}}}}.dump();
}

}  // namespace

Result<void> Peers::on_question(Peer& peer, MessageType type, std::span<const std::byte> message) {
  const auto question = decode_question(type, message);
  if (!question) return tl::unexpected(question.error());
  if (peer.reply_sent < peer.reply.size()) return {};  // the one before is still being answered
  switch (question->type) {
    case MessageType::kStreams:
      peer.reply = setup_.streams();
      break;
    case MessageType::kStallLog:
      peer.reply = setup_.stall_log();
      break;
    case MessageType::kMetrics:
      peer.reply = setup_.metrics();
      break;
    case MessageType::kDisconnect:
      peer.reply = disconnect(peer, question->connection);
      break;
    default:
      peer.reply = setup_.status();
  }
  peer.reply_sent = 0;
  send_reply(peer);
  return {};
}

std::string Peers::disconnect(const Peer& by, std::uint32_t connection) {
  const PeerIdentity& asker = by.identity;
  if (!setup_.admission.may_disconnect(asker.uid)) {
    log_some(LogKind::kDisconnected, spdlog::level::warn,
             "pid {} uid {} may not disconnect others (connection {})", asker.pid, asker.uid, connection);
    return refusal(Code::kPermissionDenied,
                   "only root and the daemon's own user may disconnect others; you are uid " +
                       std::to_string(asker.uid));
  }
  const auto found = peers_.find(connection);
  if (found == peers_.end() || found->second.phase != Peer::Phase::kServing)
    return refusal(Code::kNotFound, "there is no connection " + std::to_string(connection) +
                                        " (nvr-readerctl status lists them)");
  const PeerIdentity whom = found->second.identity;
  log_some(LogKind::kDisconnected, spdlog::level::warn,
           "client pid {} uid {} is disconnected, as pid {} uid {} asked for", whom.pid, whom.uid, asker.pid,
           asker.uid);
  const Error why{.code = Code::kAborted,
                  .message = "an operator disconnected this connection (pid " + std::to_string(asker.pid) +
                             ", uid " + std::to_string(asker.uid) + ")"};
  end(found->second, &why);
  return ordered_json{{"disconnected", {{"connection", connection}, {"pid", whom.pid}, {"uid", whom.uid}}}}
      .dump();
}

void Peers::send_reply(Peer& peer) {
  while (peer.reply_sent < peer.reply.size()) {
    shm::StatusPart part;
    const std::size_t size = peer.reply.copy(part.text, sizeof(part.text), peer.reply_sent);
    part.header.length = static_cast<std::uint16_t>(offsetof(shm::StatusPart, text) + size);
    part.total = static_cast<std::uint32_t>(peer.reply.size());
    part.offset = static_cast<std::uint32_t>(peer.reply_sent);
    if (!shm::send_message(peer.socket.get(), part))
      break;  // the rest when there is room, or never if it has gone
    peer.reply_sent += size;
  }
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLRDHUP;
  if (peer.reply_sent < peer.reply.size()) event.events |= EPOLLOUT;
  event.data.u64 = tag_of(kSocket, peer.id);
  epoll_ctl(epoll_, EPOLL_CTL_MOD, peer.socket.get(), &event);
}

}  // namespace nvr::daemon
