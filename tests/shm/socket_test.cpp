// Messages on the socket: whole, checked, with descriptors only where they are expected.
#include "shm/socket.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include "shm/clock.h"
#include "tests/support/temp_dir.h"

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
  REQUIRE(received->descriptors.size() == 2);
  for (const UniqueFd& fd : received->descriptors) CHECK(fcntl(fd.get(), F_GETFD) == FD_CLOEXEC);
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

TEST_CASE("socket: a message that is too long, or has too many descriptors, is refused") {
  const Pair pair = make_pair();
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  std::array<std::byte, 64> buffer;
  REQUIRE(send_message(pair.a.get(), Goodbye{}).has_value());
  CHECK(receive_message(pair.b.get(), buffer, 3).error().code == Code::kInvalidArgument);
  REQUIRE(send_message(pair.a.get(), Ready{}, std::array{null.get(), null.get()}).has_value());
  CHECK(receive_message(pair.b.get(), buffer, 1).error().code == Code::kInvalidArgument);
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

TEST_CASE("socket: a GOODBYE is read from a peer that has closed already, and no further than it is long") {
  Goodbye goodbye;
  goodbye.code = static_cast<std::uint32_t>(Code::kResourceExhausted);
  std::strcpy(goodbye.text, "full");
  SECTION("before HELLO was sent") {
    Pair pair = make_pair();
    REQUIRE(send_message(pair.b.get(), goodbye).has_value());
    pair.b.reset();
    CHECK(greet(pair.a.get(), 1, 2, now_ns() + kSecond).error().message == "full");
  }
  SECTION("without having read what was sent to it") {
    Pair pair = make_pair();
    REQUIRE(send_message(pair.a.get(), Hello{}).has_value());
    REQUIRE(send_message(pair.b.get(), goodbye).has_value());
    pair.b.reset();
    std::array<std::byte, 512> buffer;
    const auto received = receive_message(pair.a.get(), buffer);
    REQUIRE(received.has_value());
    CHECK(received->size == sizeof(Goodbye));
  }
  SECTION("with a text that has no end") {
    struct {
      Goodbye goodbye;
      char behind[16] = "something else";
    } memory;
    std::memset(memory.goodbye.text, 'x', sizeof(memory.goodbye.text));
    CHECK(to_error(memory.goodbye).message == std::string(sizeof(memory.goodbye.text), 'x'));
  }
}

TEST_CASE("socket: signals do not end the wait for an answer") {
  const Pair pair = make_pair();
  struct sigaction before = {};
  struct sigaction action = {};
  action.sa_handler = [](int) {};
  REQUIRE(sigaction(SIGUSR1, &action, &before) == 0);
  std::thread peer([&pair, waiter = pthread_self()] {
    Goodbye goodbye;
    std::strcpy(goodbye.text, "full");
    const bool has_hello = wait_readable(pair.b.get(), now_ns() + 60 * kSecond).has_value();
    for (int i = 0; i < 50; ++i) {
      pthread_kill(waiter, SIGUSR1);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (has_hello) static_cast<void>(send_message(pair.b.get(), goodbye).has_value());
  });
  const auto refused = greet(pair.a.get(), 1, 2, now_ns() + 60 * kSecond);
  peer.join();
  sigaction(SIGUSR1, &before, nullptr);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message == "full");
}

// A listening socket that nobody accepts from.
UniqueFd listen_at(const std::string& path, int type) {
  UniqueFd listener(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  REQUIRE(bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(listen(listener.get(), 0) == 0);
  return listener;
}

TEST_CASE("socket: connecting to what is no daemon, or accepts nobody, says so") {
  const test::TempDir root;
  const UniqueFd stream = listen_at(root / "stream", SOCK_STREAM);
  const UniqueFd full = listen_at(root / "full", SOCK_SEQPACKET);
  const UniqueFd waits = connect_socket(root / "full", now_ns() + kSecond).value();  // in the backlog
  struct Case {
    std::string path;
    Code code;
    std::string text;
  };
  const Case cases[] = {
      {"/nonexistent/nvr.sock", Code::kUnavailable, "/nonexistent/nvr.sock"},
      {root / "stream", Code::kUnavailable, "is the daemon running?"},
      {root / "full", Code::kUnavailable, "accepts no connection"},
      {std::string(sizeof(sockaddr_un::sun_path), 'x'), Code::kInvalidArgument, "longer than"},
      {"", Code::kInvalidArgument, "empty"},
  };
  for (const auto& [path, code, text] : cases) {
    CAPTURE(path);
    const auto failed = connect_socket(path, now_ns() + 20 * kMillisecond);
    REQUIRE_FALSE(failed.has_value());
    CHECK(failed.error().code == code);
    CHECK(failed.error().message.find(text) != std::string::npos);
  }
}

}  // namespace
}  // namespace nvr::shm
