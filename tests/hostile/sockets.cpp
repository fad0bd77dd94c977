// What a client can do with the socket: broken and late handshakes, messages and descriptors out of place,
// storms of connections, and never reading.
#include <errno.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>

#include "shm/clock.h"
#include "tests/hostile/scene.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

template <class Message>
std::string bytes_of(const Message& message) {
  std::string bytes(reinterpret_cast<const char*>(&message), sizeof(message));
  bytes.resize(message.header.length);  // which need not be its size
  return bytes;
}

void send_raw(int socket, const std::string& bytes) {
  static_cast<void>(send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
}

// A message with a descriptor attached. False when the kernel refuses to carry it there.
bool send_with_descriptor(int socket, const std::string& bytes, int fd) {
  iovec part = {.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  cmsghdr* const rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  return sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

shm::Hello hello_for(std::uint32_t streams, std::uint32_t slots = 2) {
  shm::Hello hello;
  hello.streams = streams;
  hello.slots_per_stream = streams == 0 ? 0 : slots;
  return hello;
}

// A control connection after its READY.
shm::UniqueFd control_connection(const std::string& path) {
  shm::UniqueFd socket = connect_raw(path);
  if (!shm::greet(socket.get(), 0, 0, far_deadline_ns()) || !shm::send_message(socket.get(), shm::Ready{}))
    throw TestFailure("no control connection");
  return socket;
}

// A TCP connection with unsent bytes that will not go away, and SO_LINGER: closing its last descriptor waits.
class LingeringTcp {
 public:
  LingeringTcp() {
    shm::UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    const int small = 4096;
    setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    near_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (bind(listener.get(), generic, length) != 0 || listen(listener.get(), 1) != 0 ||
        getsockname(listener.get(), generic, &length) != 0 || connect(near_.get(), generic, length) != 0)
      throw TestFailure("no TCP connection to oneself");
    far_.reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const std::string bytes(1 << 16, 'x');
    while (send(near_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
    }
    const linger ten_seconds = {.l_onoff = 1, .l_linger = 10};
    setsockopt(near_.get(), SOL_SOCKET, SO_LINGER, &ten_seconds, sizeof(ten_seconds));
  }
  [[nodiscard]] int fd() const { return near_.get(); }
  // Without waiting: the far end goes first.
  ~LingeringTcp() {
    const linger none = {.l_onoff = 1, .l_linger = 0};
    setsockopt(near_.get(), SOL_SOCKET, SO_LINGER, &none, sizeof(none));
  }

 private:
  shm::UniqueFd near_;
  shm::UniqueFd far_;
};

TEST_CASE("broken handshakes are refused with the reason, and cost nobody anything", "[once]") {
  Scene scene;
  shm::Hello wrong_magic = hello_for(2);
  wrong_magic.header.magic ^= 1;
  shm::Hello wrong_length = hello_for(2);
  wrong_length.header.length = 31;
  shm::Hello wrong_version = hello_for(2);
  wrong_version.version_major = 77;
  shm::Hello odd_type = hello_for(2);
  odd_type.header.type = static_cast<shm::MessageType>(99);
  shm::Hello odd_feature = hello_for(2);
  odd_feature.features = 0x80000001;
  shm::Hello odd_reserved = hello_for(2);
  odd_reserved.reserved = std::uint64_t{1} << 63;
  shm::Hello odd_control = hello_for(0);
  odd_control.features = 2;
  shm::Hello longer = hello_for(2);
  longer.header.length += 8;
  struct Attempt {
    std::string bytes;
    std::string reason;
  };
  for (const Attempt& attempt :
       std::vector<Attempt>{{bytes_of(wrong_magic), "magic"},
                            {bytes_of(wrong_length) + "x", "length"},
                            {bytes_of(wrong_version), "version 77"},
                            {bytes_of(odd_type), "out of place"},
                            {bytes_of(odd_feature), "features 0x80000001"},
                            {bytes_of(odd_reserved), "reserved"},
                            {bytes_of(odd_control), "features 0x2"},
                            {bytes_of(longer), "length"},
                            {bytes_of(hello_for(2)).substr(0, 15), "length"},  // half a HELLO
                            {bytes_of(hello_for(2)).substr(0, 5), "without header"},
                            {std::string(4096, 'x'), "too long"},
                            {bytes_of(shm::Ready{}), "out of place"},
                            {bytes_of(shm::StatusRequest{}), "out of place"},
                            {bytes_of(shm::DisconnectRequest{.connection = 1}), "out of place"},
                            {bytes_of(shm::Goodbye{}), "out of place"},
                            {bytes_of(hello_for(UINT32_MAX)), ""},
                            {bytes_of(hello_for(256, UINT32_MAX)), ""},
                            {bytes_of(hello_for(256, 64)), "--client-memory"}}) {
    CAPTURE(attempt.reason);
    CHECK(scene.attack([&](const Reporter&) {
      const shm::UniqueFd socket = connect_raw(scene.socket());
      send_raw(socket.get(), attempt.bytes);
      const std::string words = last_words(socket.get());
      Reporter::require(!words.empty() && words.find(attempt.reason) != std::string::npos,
                        "GOODBYE says: " + words);
    }) == "");
  }
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a handshake that is not finished within a second is ended, saying so", "[once]") {
  Scene scene;
  const bool says_hello = GENERATE(false, true);
  CHECK(scene.attack([&](const Reporter&) {
    const shm::UniqueFd socket = connect_raw(scene.socket());
    if (says_hello) send_raw(socket.get(), bytes_of(hello_for(2)));
    const std::string words = last_words(socket.get());
    Reporter::require(words.find(says_hello ? "no READY" : "no HELLO") != std::string::npos,
                      "GOODBYE says: " + words);
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a READY with a tail ends the handshake", "[once]") {
  Scene scene;
  const std::uint32_t streams = GENERATE(0U, 1U);
  CHECK(scene.attack([&](const Reporter&) {
    const shm::UniqueFd socket = connect_raw(scene.socket());
    Reporter::require(shm::greet(socket.get(), streams, streams == 0 ? 0 : 2, far_deadline_ns()).has_value(),
                      "not welcome");
    shm::Ready longer;
    longer.header.length += 4;
    send_raw(socket.get(), bytes_of(longer));
    const std::string words = last_words(socket.get());
    Reporter::require(words.find("length") != std::string::npos, "GOODBYE says: " + words);
  }) == "");
  CHECK(scene.daemon().total("violations") == 1);
  CHECK(scene.problem_after() == "");
}

TEST_CASE("messages out of place end a connection that is served", "[once]") {
  Scene scene;
  std::uint64_t violations = 0;
  for (const std::string& bytes :
       {bytes_of(shm::Ready{}), bytes_of(hello_for(2)), bytes_of(shm::StatusRequest{}),
        bytes_of(shm::StreamsRequest{}), bytes_of(shm::DisconnectRequest{.connection = 1}),
        bytes_of(shm::Published{}), std::string("x"), std::string(100'000, 'x')}) {
    CAPTURE(bytes.size());
    CHECK(scene.attack([&](const Reporter&) {
      RawClient client(scene.socket());
      client.starve(0, scene.file().id);
      send_raw(client.socket(), bytes);
      Reporter::require(!client.last_words().empty(), "no reason given");
    }) == "");
    CHECK(scene.daemon().total("violations") == ++violations);
  }
  // An empty message looks like the end of the connection, and is.
  CHECK(scene.attack([&](const Reporter&) {
    RawClient client(scene.socket());
    send_raw(client.socket(), "");
    static_cast<void>(client.last_words());
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("descriptors that come with a message are refused, and none stays with the daemon", "[once]") {
  Scene scene;
  CHECK(scene.attack([&](const Reporter&) {
    for (int i = 0; i < 20; ++i) {
      const shm::UniqueFd passed(eventfd(0, EFD_CLOEXEC));
      const bool before_hello = i % 2 == 0;
      shm::UniqueFd raw;
      std::optional<RawClient> client;
      if (before_hello)
        raw = connect_raw(scene.socket());
      else
        client.emplace(scene.socket());
      const int socket = before_hello ? raw.get() : client->socket();
      const std::string bytes = before_hello ? bytes_of(hello_for(2)) : bytes_of(shm::Ready{});
      if (!send_with_descriptor(socket, bytes, passed.get())) {
        Reporter::require(errno == EPERM, strerror(errno));  // SO_PASSRIGHTS: the kernel carries none there
        continue;
      }
      const std::string words = last_words(socket);
      Reporter::require(!words.empty(), "accepted");
    }
  }) == "");
  CHECK(scene.problem_after() == "");
}

// Where the kernel has no SO_PASSRIGHTS, such a socket can hold up control, but never data.
TEST_CASE("a lingering TCP socket that is passed to the daemon holds up no stream", "[once]") {
  Scene scene;
  CHECK(scene.attack([&](const Reporter& reporter) {
    bool refused = false;
    for (int i = 0; i < 3; ++i) {
      LingeringTcp tcp;
      const shm::UniqueFd socket = connect_raw(scene.socket());
      refused = !send_with_descriptor(socket.get(), bytes_of(hello_for(2)), tcp.fd());
      if (refused) Reporter::require(errno == EPERM, strerror(errno));
    }
    reporter.line(refused ? "refused" : "carried");
  }) == "");
  CHECK(scene.bystander().goes_on());
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a client goes on beside a storm of connections", "[once]") {
  Scene scene;
  const int way = GENERATE(0, 1, 2);
  CAPTURE(way);
  CHECK(scene.held_up_by([&] {
    for (int i = 0; i < 50; ++i) {
      const shm::UniqueFd socket = connect_raw(scene.socket());
      if (way == 1) send_raw(socket.get(), bytes_of(hello_for(2)));
      if (way == 2) send_raw(socket.get(), "nonsense");
    }
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("handshakes left half open by the hundred delay others by a second at most each time", "[once]") {
  Scene scene;
  CHECK(scene.attack([&](const Reporter&) {
    std::vector<shm::UniqueFd> sockets;
    for (int i = 0; i < 200; ++i) {
      sockets.push_back(connect_raw(scene.socket()));
      if (i % 2 == 0) send_raw(sockets.back().get(), bytes_of(hello_for(2)));
    }
    // With the attacker still there, a client that tries again is let in.
    Reporter::require(wait_until([&] {
                        const shm::UniqueFd socket = connect_raw(scene.socket());
                        return shm::greet(socket.get(), 2, 2, far_deadline_ns()).has_value();
                      }),
                      "nobody gets in any more");
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a client that never reads its socket holds up nobody") {
  Scene scene;
  CHECK(scene.held_up_by([client = std::shared_ptr<RawClient>(), &scene]() mutable {
    if (!client || !client->is_served()) client = std::make_shared<RawClient>(scene.socket());
    // Asks for a message with each publication, and never takes one.
    std::uint32_t byte = 1;
    client->open(0, scene.file().id, 0, 40 * kChunkBytes);
    for (;;) {
      client->w().write_header().want_byte = byte += 2;
      const shm::Descriptor descriptor = client->take(0);
      if (shm::is_terminal(descriptor.kind)) return;
      if (descriptor.kind == shm::DescriptorKind::kChunk) client->give_back(0, descriptor.slot);
    }
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a control connection that asks and asks and never reads holds up nobody", "[once]") {
  Scene scene;
  CHECK(scene.held_up_by([&scene, sockets = std::make_shared<std::vector<shm::UniqueFd>>()] {
    while (sockets->size() < 3) sockets->push_back(control_connection(scene.socket()));
    for (const shm::UniqueFd& socket : *sockets) {
      send_raw(socket.get(), bytes_of(shm::StatusRequest{}));
      send_raw(socket.get(), bytes_of(shm::StreamsRequest{}));
      send_raw(socket.get(), bytes_of(shm::StallLogRequest{}));
    }
  }) == "");
  CHECK(scene.daemon().status().contains("engine"));
  CHECK(scene.problem_after() == "");
}

TEST_CASE("control connections that ask for every stream as fast as they can read hold up nobody", "[once]") {
  Scene scene;
  struct Asker {
    std::vector<shm::UniqueFd> sockets;
    std::optional<RawClient> client;
  };
  CHECK(scene.held_up_by([&scene, asker = std::make_shared<Asker>()] {
    if (!asker->client) {
      asker->client.emplace(scene.socket(), shm::Geometry{.streams = 256, .slots = 2});
      for (std::uint32_t i = 0; i < 256; ++i) asker->client->starve(i, scene.file().id);
    }
    while (asker->sockets.size() < 3) asker->sockets.push_back(control_connection(scene.socket()));
    std::vector<std::byte> buffer(shm::kMaxMessageBytes);
    for (const shm::UniqueFd& socket : asker->sockets)
      send_raw(socket.get(), bytes_of(shm::StreamsRequest{}));
    for (const shm::UniqueFd& socket : asker->sockets)
      while (recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) {
      }
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("questions that are not well-formed end the control connection with the reason", "[once]") {
  Scene scene;
  shm::DisconnectRequest reserved{.connection = 1};
  reserved.reserved = 1;
  shm::StreamsRequest unknown;
  unknown.header.type = static_cast<shm::MessageType>(12);
  const auto longer = [](auto question) {  // says its true length, which is not the question's
    question.header.length += 4;
    return bytes_of(question);
  };
  const auto shorter = [](auto question) {
    question.header.length = 8;
    return bytes_of(question);
  };
  std::uint64_t violations = 0;
  struct Offence {
    std::string bytes;
    std::string reason;  // what the daemon calls it
  };
  for (const auto& offence :
       std::vector<Offence>{{bytes_of(reserved), "reserved"},
                            {bytes_of(unknown), "out of place"},
                            {longer(shm::StreamsRequest{}), "length"},
                            {longer(shm::StallLogRequest{}), "length"},
                            {longer(shm::StatusRequest{}), "length"},
                            {longer(shm::MetricsRequest{}), "length"},
                            {shorter(shm::DisconnectRequest{.connection = 1}), "length"},
                            {bytes_of(shm::DisconnectRequest{.connection = 1}).substr(0, 12), "length"},
                            {bytes_of(shm::Welcome{}).substr(0, 200), "length"},
                            {bytes_of(shm::Ready{}), "out of place"}}) {
    CAPTURE(offence.reason, offence.bytes.size());
    CHECK(scene.attack([&](const Reporter&) {
      const shm::UniqueFd socket = control_connection(scene.socket());
      send_raw(socket.get(), offence.bytes);
      const std::string words = last_words(socket.get());
      Reporter::require(!words.empty() && words.find(offence.reason) != std::string::npos,
                        "GOODBYE says: " + words);
    }) == "");
    CHECK(scene.daemon().total("violations") == ++violations);
  }
  CHECK(scene.problem_after() == "");
}

TEST_CASE("a client cannot disconnect others, however often it asks", "[once]") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  Scene scene;
  CHECK(scene.attack([&](const Reporter&) {
    const shm::UniqueFd socket = control_connection(scene.socket());
    std::vector<char> buffer(shm::kMaxMessageBytes);
    for (std::uint32_t connection = 0; connection < 1000; ++connection) {
      send_raw(socket.get(), bytes_of(shm::DisconnectRequest{.connection = connection}));
      Reporter::require(shm::wait_readable(socket.get(), far_deadline_ns()).has_value(), "no answer");
      const ssize_t size = recv(socket.get(), buffer.data(), buffer.size(), 0);
      const std::string answer(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
      Reporter::require(answer.find("only root") != std::string::npos, "answered: " + answer);
    }
  }) == "");
  CHECK(scene.daemon().total("violations") == 0);
  CHECK(scene.bystander().goes_on());
  CHECK(scene.problem_after() == "");
}

}  // namespace
}  // namespace nvr::test
