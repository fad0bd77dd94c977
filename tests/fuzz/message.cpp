// Every message of the protocol, in both directions, as one pure function decodes it.
#include <cstring>

#include "shm/socket.h"
#include "tests/fuzz/target.h"

namespace nvr::test {
namespace {

template <class Message>
void decode(const char* name, std::span<const std::byte> bytes, Judgement& judgement) {
  const auto message = shm::decode_message<Message>(bytes);
  judgement.require(message.has_value() == (bytes.size() == Message{}.header.length),
                    "a message of the wrong length");
  if (!message) return;
  judgement.require(memcmp(&*message, bytes.data(), bytes.size()) == 0, "a message that was changed");
  const auto header = shm::check_header(bytes);
  if (header && header->type == Message{}.header.type) judgement.reach(name);
  if constexpr (std::is_same_v<Message, shm::Goodbye>) {
    const std::string text = shm::to_error(*message).message;
    judgement.require(
        text.size() <= sizeof(message->text) && memcmp(text.data(), message->text, text.size()) == 0,
        "GOODBYE's text goes on beyond its end");
  }
}

void run(std::span<const std::byte> input, Judgement& judgement) {
  const auto header = shm::check_header(input);
  judgement.require(!header || (header->magic == shm::kMagic && header->length == input.size()),
                    "a header that does not fit its message");
  decode<shm::Hello>("HELLO", input, judgement);
  decode<shm::Welcome>("WELCOME", input, judgement);
  decode<shm::Ready>("READY", input, judgement);
  decode<shm::Goodbye>("GOODBYE", input, judgement);
  decode<shm::Published>("PUBLISHED", input, judgement);
  decode<shm::StatusRequest>("STATUS", input, judgement);
  decode<shm::StreamsRequest>("STREAMS", input, judgement);
  decode<shm::StallLogRequest>("STALL_LOG", input, judgement);
  decode<shm::DisconnectRequest>("DISCONNECT", input, judgement);
  decode<shm::MetricsRequest>("METRICS", input, judgement);
}

}  // namespace

const FuzzTarget message_target = {"message",
                                   run,
                                   {"HELLO", "WELCOME", "READY", "GOODBYE", "PUBLISHED", "STATUS", "STREAMS",
                                    "STALL_LOG", "DISCONNECT", "METRICS"}};

}  // namespace nvr::test
