// Messages on the socket: whole, checked, with descriptors only where they are expected.
#include "shm/socket.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>

#include "shm/clock.h"

namespace nvr::shm {
namespace {

struct Pair {
  UniqueFd a;
  UniqueFd b;
};

Pair make_pair() {
  int fds[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

TEST_CASE("socket: a message arrives whole, with its descriptors") {
  const Pair pair = make_pair();
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  REQUIRE(send_message(pair.a.get(), Hello{}, std::array{null.get(), null.get()}).has_value());
  std::array<std::byte, 512> buffer;
  auto received = receive_message(pair.b.get(), buffer, 3);
  REQUIRE(received.has_value());
  CHECK(received->size == sizeof(Hello));
  CHECK(received->descriptors.size() == 2);
  const auto message = std::span(buffer).first(received->size);
  CHECK(check_header(message).value().type == MessageType::kHello);
  CHECK(decode_message<Hello>(message).has_value());
  CHECK_FALSE(decode_message<Goodbye>(message).has_value());
}

TEST_CASE("socket: descriptors where none belong are refused and closed") {
  const Pair pair = make_pair();
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  REQUIRE(send_message(pair.a.get(), Hello{}, std::array{null.get()}).has_value());
  std::array<std::byte, 512> buffer;
  const auto received = receive_message(pair.b.get(), buffer, 0);
  REQUIRE_FALSE(received.has_value());
  CHECK(received.error().code == Code::kInvalidArgument);
}

TEST_CASE("socket: an empty one says EAGAIN, a closed one size 0, a full one EAGAIN") {
  Pair pair = make_pair();
  std::array<std::byte, 64> buffer;
  CHECK(receive_message(pair.b.get(), buffer).error().sys_errno == EAGAIN);
  Result<void> sent;
  for (int i = 0; i < 100'000 && sent; ++i) sent = send_message(pair.a.get(), Ready{});
  CHECK(sent.error().sys_errno == EAGAIN);
  while (receive_message(pair.b.get(), buffer).has_value()) {
  }
  pair.a.reset();
  CHECK(receive_message(pair.b.get(), buffer).value().size == 0);
  CHECK(send_message(pair.b.get(), Ready{}).error().code == Code::kUnavailable);
}

TEST_CASE("socket: headers that lie are found out") {
  Hello hello;
  const auto bytes = [&hello] { return std::as_bytes(std::span(&hello, 1)); };
  CHECK(check_header(bytes()).has_value());
  CHECK_FALSE(check_header(bytes().first(7)).has_value());
  CHECK_FALSE(check_header(bytes().first(31)).has_value());
  hello.header.magic ^= 1;
  CHECK_FALSE(check_header(bytes()).has_value());
}

TEST_CASE("socket: greet says what GOODBYE said, and gives up at the deadline") {
  const Pair pair = make_pair();
  Goodbye goodbye;
  goodbye.code = static_cast<std::uint32_t>(Code::kResourceExhausted);
  std::strcpy(goodbye.text, "full");
  REQUIRE(send_message(pair.b.get(), goodbye).has_value());
  const auto refused = greet(pair.a.get(), 1, 2, now_ns() + kSecond);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::kResourceExhausted);
  CHECK(refused.error().message == "full");
  CHECK(greet(pair.a.get(), 1, 2, now_ns() + 20 * kMillisecond).error().code == Code::kUnavailable);
}

TEST_CASE("socket: connecting to nothing says so") {
  const auto missing = connect_socket("/nonexistent/nvr.sock", now_ns() + kSecond);
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().code == Code::kUnavailable);
  CHECK(missing.error().message.find("/nonexistent/nvr.sock") != std::string::npos);
  CHECK(connect_socket(std::string(200, 'x'), now_ns() + kSecond).error().code == Code::kInvalidArgument);
}

}  // namespace
}  // namespace nvr::shm
