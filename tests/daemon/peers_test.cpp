// The control thread's peers over real sockets, from accept to what remains of them. Nothing runs by itself:
// the test takes the control thread's turns, and says what the disk thread would.
#include "daemon/peers.h"

#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <array>
#include <catch2/catch.hpp>
#include <deque>
#include <nlohmann/json.hpp>

#include "shm/clock.h"
#include "shm/mapping.h"
#include "shm/socket.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

namespace nvr::daemon {
namespace {

using shm::MessageType;

constexpr std::uint64_t kClientMemory = 32 << 20;
constexpr std::size_t kAnswerBytes = 600'000;  // more than a socket holds

// Of so many places this user may take.
std::uint32_t own_part_of(std::uint32_t places) {
  return geteuid() == 0 ? places : places - places / 8;
}

// The other end of one socket.
struct Guest {
  shm::UniqueFd socket;
  std::vector<shm::UniqueFd> segments = {};  // R, W, doorbell
  shm::Welcome welcome = {};

  template <class Message>
  void say(const Message& message) const {
    REQUIRE(shm::send_message(socket.get(), message));
  }
  // The next message, if there is one; empty when the daemon has closed.
  std::optional<std::vector<std::byte>> hear(std::size_t max_descriptors = 0) {
    std::vector<std::byte> message(shm::kMaxMessageBytes);
    auto received = shm::receive_message(socket.get(), message, max_descriptors);
    if (!received) return std::nullopt;
    message.resize(received->size);
    segments.insert(segments.end(), std::make_move_iterator(received->descriptors.begin()),
                    std::make_move_iterator(received->descriptors.end()));
    return message;
  }
  // GOODBYE's code, and nothing but that; kOk when there is no word.
  Code goodbye() {
    const auto message = hear();
    if (!message || message->empty()) return Code::kOk;
    const auto said = shm::decode_message<shm::Goodbye>(*message);
    return said ? static_cast<Code>(said->code) : Code::kInternal;
  }
};

class Reception {
 public:
  explicit Reception(std::uint32_t max_clients = 4) : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    spdlog::set_level(spdlog::level::off);
    auto disk = DiskThread::create({.directory = "/none", .engine = "none", .max_connections = 64}, -1);
    REQUIRE(disk);
    disk_ = std::move(*disk);  // never started
    peers_.emplace(epoll_.get(), *disk_,
                   Peers::Setup{.admission = Admission({.max_clients = max_clients,
                                                        .max_clients_per_uid = max_clients,
                                                        .client_memory_bytes = kClientMemory,
                                                        .total_memory_bytes = 4 * kClientMemory},
                                                       geteuid(), {}),
                                .instance = 0x1234,
                                .directory = "/a/disk",
                                .status = [] { return std::string(kAnswerBytes, 'a'); },
                                .streams = [] { return std::string(kAnswerBytes / 2, 'b'); },
                                .stall_log = [] { return std::string("{}"); }});
    REQUIRE(peers_->listen(path(), false));
  }
  ~Reception() { spdlog::set_level(spdlog::level::info); }
  Reception(const Reception&) = delete;
  Reception& operator=(const Reception&) = delete;

  Peers& operator*() { return *peers_; }
  Peers* operator->() { return &*peers_; }
  [[nodiscard]] std::string path() const { return directory_ / "socket"; }

  // One round of the control thread. Returns how many events there were.
  int turn() {
    std::array<epoll_event, 64> events;
    const int count = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      peers_->on_event(event.data.u64, event.events);
    }
    peers_->check_deadlines();
    return count;
  }
  void settle() {
    for (int i = 0; i < 1000; ++i)
      if (turn() == 0) return;
    FAIL("there is always an event");
  }

  Guest connect() {
    auto socket = shm::connect_socket(path(), shm::now_ns() + 10 * shm::kSecond);
    REQUIRE(socket);
    Guest guest{.socket = std::move(*socket)};
    settle();
    return guest;
  }
  // As far as WELCOME, or less where that is not said.
  Guest greet(std::uint32_t streams, std::uint32_t slots = 4) {
    Guest guest = connect();
    say_hello(guest, streams, slots);
    hear_welcome(guest);
    return guest;
  }
  void say_hello(const Guest& guest, std::uint32_t streams, std::uint32_t slots) {
    shm::Hello hello;
    hello.streams = streams;
    hello.slots_per_stream = slots;
    guest.say(hello);
    settle();
  }
  static void hear_welcome(Guest& guest) {
    std::array<std::byte, sizeof(shm::Welcome)> looked;
    if (recv(guest.socket.get(), looked.data(), looked.size(), MSG_PEEK) != sizeof(shm::Welcome)) return;
    const auto message = guest.hear(3);
    REQUIRE(message);
    const auto welcome = shm::decode_message<shm::Welcome>(*message);
    REQUIRE(welcome);
    guest.welcome = *welcome;
  }
  Guest serve(std::uint32_t streams = 1, std::uint32_t slots = 4) {
    Guest guest = greet(streams, slots);
    guest.say(shm::Ready());
    settle();
    return guest;
  }
  Guest control() { return serve(0, 0); }

  [[nodiscard]] const Connection* connection() const {
    const Connection* found = nullptr;
    peers_->for_each_serving([&](const Connection& each) { found = &each; });
    return found;
  }
  // Counts the messages to the disk thread. This disk thread releases each connection that it is told to.
  struct Posted {
    int attached = 0;
    int detached = 0;
  };
  Posted let_go() {
    Posted posted;
    while (const auto message = disk_->take_posted()) {
      posted.attached += std::holds_alternative<Attach>(*message) ? 1 : 0;
      const auto* const detach = std::get_if<Detach>(&*message);
      posted.detached += detach != nullptr ? 1 : 0;
      if (detach != nullptr) peers_->on_detached(*detach->connection);
    }
    return posted;
  }

 private:
  test::TempDir directory_;
  shm::UniqueFd epoll_;
  std::unique_ptr<DiskThread> disk_;
  std::optional<Peers> peers_;
};

// The answer in whole, with how it came checked.
std::string answer(Reception& reception, Guest& control) {
  std::string text;
  std::size_t total = 1;
  REQUIRE(test::wait_until([&] {
    const auto message = control.hear();
    if (!message) return reception.turn() < 0;
    shm::StatusPart part;
    std::copy(message->begin(), message->end(), reinterpret_cast<std::byte*>(&part));
    if (part.header.type != MessageType::kStatusPart || part.offset != text.size()) FAIL("a torn answer");
    total = part.total;
    text.append(part.text, message->size() - offsetof(shm::StatusPart, text));
    return text.size() >= total;
  }));
  CHECK(text.size() == total);
  return text;
}

// Leaves the process so many free descriptors.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t free) {
    // The first error with an errno takes UBSan two descriptors: it looks at the type of an error_category.
    static_cast<void>(fail_errno(EMFILE, "none left"));
    getrlimit(RLIMIT_NOFILE, &before_);
    const int lowest = dup(0);
    close(lowest);
    const rlimit few = {.rlim_cur = static_cast<rlim_t>(lowest) + free, .rlim_max = before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  rlimit before_ = {};
};

TEST_CASE("peers: a connect that fails half-way counts nowhere afterwards, wherever it fails") {
  Reception reception;
  std::uint64_t failures = 0;
  for (; failures < 20; ++failures) {
    Guest guest = reception.connect();
    {
      const FewDescriptors few(failures);
      reception.say_hello(guest, 1, 4);
    }
    reception.hear_welcome(guest);
    if (guest.welcome.streams == 1) break;
    CAPTURE(failures);
    CHECK(guest.goodbye() == Code::kResourceExhausted);
    CHECK(reception->admission().clients() == 0);
    CHECK(reception->admission().memory_bytes() == 0);
    CHECK(reception->totals().refused == failures + 1);
  }
  CHECK(failures >= 3);
  CHECK(failures < 20);
  reception.settle();
  CHECK(reception->admission().clients() == 0);  // this one left before READY
  CHECK(reception->admission().memory_bytes() == 0);
}

TEST_CASE("peers: a control connection that is refused neither takes nor gives a place") {
  Reception reception;
  for (int round = 0; round < 2; ++round) {
    std::deque<Guest> controls;
    for (std::uint32_t i = 0; i < own_part_of(kMaxControlConnections); ++i) {
      controls.push_back(reception.control());
      CHECK(controls.back().welcome.max_streams == shm::kMaxStreams);
    }
    CHECK(reception->totals().controls == own_part_of(kMaxControlConnections));
    for (int i = 0; i < 20; ++i) {
      Guest refused = reception.greet(0, 0);
      CHECK(refused.goodbye() == Code::kResourceExhausted);
    }
    reception.settle();
    CHECK(reception->totals().controls == own_part_of(kMaxControlConnections));
    controls.clear();
    reception.settle();
    CHECK(reception->totals().controls == 0);
  }
}

TEST_CASE("peers: an answer arrives whole, whatever is asked meanwhile, and then nothing is left to do") {
  Reception reception;
  Guest control = reception.control();
  control.say(shm::StatusRequest());
  reception.settle();
  control.say(shm::StreamsRequest());  // before the answer has gone out: dropped
  reception.settle();
  CHECK(answer(reception, control) == std::string(kAnswerBytes, 'a'));
  CHECK(reception.turn() == 0);
  CHECK_FALSE(control.hear());
  control.say(shm::StreamsRequest());
  reception.settle();
  CHECK(answer(reception, control) == std::string(kAnswerBytes / 2, 'b'));
  CHECK(reception.turn() == 0);
}

TEST_CASE("peers: only a connection that is served can be disconnected, and once") {
  Reception reception;
  Guest control = reception.control();  // 1
  const Guest half_open = reception.connect();
  Guest client = reception.serve();
  REQUIRE(reception.connection() != nullptr);
  const std::uint32_t id = reception.connection()->id();
  const auto ask = [&](std::uint32_t connection) {
    shm::DisconnectRequest request;
    request.connection = connection;
    control.say(request);
    reception.settle();
    return nlohmann::json::parse(answer(reception, control));
  };
  const auto not_found = static_cast<int>(Code::kNotFound);
  for (const std::uint32_t other : {1u, 2u, 0u, id + 1}) CHECK(ask(other)["error"]["code"] == not_found);
  const auto done = ask(id);
  CHECK(done["disconnected"]["connection"] == id);
  CHECK(done["disconnected"]["pid"] == getpid());
  CHECK(client.goodbye() == Code::kAborted);
  CHECK(ask(id)["error"]["code"] == not_found);  // the disk thread has not let go of it
  CHECK(reception.let_go().detached == 1);
  CHECK(ask(id)["error"]["code"] == not_found);
}

TEST_CASE("peers: a client that leaves is let go of once, also when it is accused afterwards") {
  Reception reception;
  Guest client = reception.serve();
  const Connection& connection = *reception.connection();
  if (GENERATE(true, false))
    client.socket.reset();
  else
    reception->on_violation(connection, "first");
  reception.settle();
  reception->on_violation(connection, "second");
  reception.settle();
  CHECK(reception->admission().clients() == 1);  // the disk thread still has it
  const auto posted = reception.let_go();
  CHECK(posted.attached == 1);
  CHECK(posted.detached == 1);
  CHECK(reception->admission().clients() == 0);
}

TEST_CASE("peers: memory counts for as long as its client keeps either segment") {
  Reception reception;
  Guest client = reception.serve();
  const std::uint64_t bytes = reception->admission().memory_bytes();
  const std::size_t kept = GENERATE(0U, 1U);
  shm::UniqueFd segment = std::move(client.segments.at(kept));
  client = Guest();
  reception.settle();
  CHECK(reception->next_deadline_ns() == UINT64_MAX);
  reception.let_go();
  CHECK(reception->admission().clients() == 0);
  CHECK(reception->admission().memory_bytes() == bytes);
  CHECK(reception->totals().held_bytes == bytes);
  CHECK(reception->next_deadline_ns() <= shm::now_ns() + shm::kSecond);
  segment.reset();
  CHECK(test::wait_until([&] {
    reception.turn();
    return reception->totals().held_bytes == 0;
  }));
  CHECK(reception->admission().memory_bytes() == 0);
  CHECK(reception->next_deadline_ns() == UINT64_MAX);
}

TEST_CASE("peers: new memory is given its pages step by step, and then that is done") {
  Reception reception;
  const Guest client = reception.serve(8, 16);
  int steps = 0;
  while (steps < 100 && reception->populate_some()) ++steps;
  CHECK(steps > 1);
  CHECK(steps < 100);
  CHECK_FALSE(reception->populate_some());
}

TEST_CASE("peers: WELCOME and R tell what the client must know") {
  Reception reception;
  const Guest client = reception.greet(3, 8);
  const shm::Geometry geometry{.streams = 3, .slots = 8};
  const shm::Welcome& welcome = client.welcome;
  CHECK(welcome.streams == 3);
  CHECK(welcome.slots_per_stream == 8);
  CHECK(welcome.first_index == shm::kFirstIndex);
  CHECK(welcome.max_streams == shm::kMaxStreams);
  CHECK(welcome.max_client_bytes == kClientMemory);
  CHECK(welcome.read_bytes == geometry.read_bytes());
  CHECK(welcome.write_bytes == geometry.write_bytes());
  CHECK(welcome.instance == 0x1234);
  CHECK(std::string(welcome.directory) == "/a/disk");
  REQUIRE(client.segments.size() == 3);
  shm::ReadHeader header;
  REQUIRE(pread(client.segments[0].get(), &header, 128, 0) == 128);
  CHECK(header.magic == shm::kMagic);
  CHECK(header.version_major == shm::kVersionMajor);
  CHECK(header.version_minor == shm::kVersionMinor);
  CHECK(header.instance == 0x1234);
}

TEST_CASE("peers: handshakes that end, in whatever way, leave their places to others") {
  Reception reception;
  for (std::uint32_t i = 0; i < 3 * kMaxHandshakes; ++i) {
    Guest guest = i % 3 == 0 ? reception.connect() : i % 3 == 1 ? reception.greet(1) : reception.control();
    guest = Guest();
    reception.settle();
  }
  std::deque<Guest> half_open;
  for (std::uint32_t i = 0; i < own_part_of(kMaxHandshakes); ++i) half_open.push_back(reception.connect());
  Guest refused = reception.connect();
  CHECK(refused.goodbye() == Code::kResourceExhausted);
  CHECK(reception->totals().refused == 1);
  half_open.clear();
  reception.settle();
  const Guest client = reception.serve();
  CHECK(client.welcome.streams == 1);
  CHECK(reception->next_deadline_ns() == UINT64_MAX);  // nothing is due of who is served
}

TEST_CASE("peers: HELLO and READY have a second each") {
  constexpr std::uint64_t kEach = shm::kHandshakeMs * shm::kMillisecond;
  Reception reception;
  const std::uint64_t before_connect = shm::now_ns();
  Guest guest = reception.connect();
  CHECK(reception->next_deadline_ns() >= before_connect + kEach);
  const std::uint64_t before_hello = shm::now_ns();
  CHECK(reception->next_deadline_ns() < before_hello + kEach);
  reception.say_hello(guest, 1, 4);
  CHECK(reception->next_deadline_ns() >= before_hello + kEach);
  CHECK(reception->next_deadline_ns() <= shm::now_ns() + kEach);
}

TEST_CASE("peers: a client whose HELLO has come takes no place of those that have not said it") {
  Reception reception(/*max_clients=*/kMaxHandshakes + 2);
  std::deque<Guest> welcomed;
  for (std::uint32_t i = 0; i < kMaxHandshakes + 2; ++i) {
    welcomed.push_back(reception.greet(1, 2));
    REQUIRE(welcomed.back().welcome.streams == 1);
  }
  CHECK(reception->totals().refused == 0);
}

// A storm of them is accepted before the first event of a socket.
TEST_CASE("peers: a HELLO that came with the connect is heard at the accept") {
  Reception reception(/*max_clients=*/kMaxHandshakes + 2);
  std::deque<Guest> guests;
  shm::Hello hello;
  hello.streams = 1;
  hello.slots_per_stream = 2;
  for (int i = 0; i < 30; ++i) {
    auto socket = shm::connect_socket(reception.path(), shm::now_ns() + 10 * shm::kSecond);
    REQUIRE(socket);
    guests.push_back({.socket = std::move(*socket)});
    guests.back().say(hello);
  }
  CHECK(reception.turn() == 1);  // the listener's event
  for (Guest& guest : guests) {
    Reception::hear_welcome(guest);
    CHECK(guest.welcome.streams == 1);
  }
}

TEST_CASE("peers: a handshake that takes too long is refused, with the reason, and counted") {
  Reception reception;
  Guest silent = reception.connect();
  Guest slow = reception.greet(1);
  CHECK(reception->next_deadline_ns() <= shm::now_ns() + shm::kHandshakeMs * shm::kMillisecond);
  for (Guest* const late : {&silent, &slow}) {
    Code code = Code::kOk;
    CHECK(test::wait_until([&] {
      reception.turn();
      return (code = late->goodbye()) != Code::kOk;
    }));
    CHECK(code == Code::kDeadlineExceeded);
  }
  CHECK(reception->totals().refused == 2);
  CHECK(reception->admission().clients() == 0);
}

TEST_CASE("peers: without descriptors for an accept another is tried later, by itself") {
  Reception reception;
  auto waiting = shm::connect_socket(reception.path(), shm::now_ns() + 10 * shm::kSecond);
  REQUIRE(waiting);
  {
    const FewDescriptors none(0);
    reception.settle();  // the listener is no event meanwhile
  }
  CHECK(reception->next_deadline_ns() <= shm::now_ns() + shm::kSecond);
  Guest guest{.socket = std::move(*waiting)};
  guest.say(shm::Hello());  // of a control connection
  CHECK(test::wait_until([&] {
    reception.turn();
    return reception->totals().controls == 1;
  }));
  guest.say(shm::Ready());
  const Guest next = reception.control();
  CHECK(next.welcome.max_streams == shm::kMaxStreams);
  CHECK(reception->next_deadline_ns() == UINT64_MAX);  // the pause is over
}

TEST_CASE("peers: an offence and a refusal are counted apart") {
  Reception reception;
  Guest offender = reception.connect();
  offender.say(shm::Ready());
  reception.settle();
  CHECK(offender.goodbye() == Code::kInvalidArgument);
  CHECK(reception->totals().violations == 1);
  CHECK(reception->totals().refused == 0);
  Guest stranger = reception.connect();
  shm::Hello hello;
  hello.version_major = shm::kVersionMajor + 1;
  stranger.say(hello);
  reception.settle();
  CHECK(stranger.goodbye() == Code::kFailedPrecondition);
  CHECK(reception->totals().violations == 1);
  CHECK(reception->totals().refused == 1);
  CHECK(reception->totals().accepted == 0);
}

TEST_CASE("peers: at the end everybody is told, once, and the path is removed") {
  Reception reception;
  Guest client = reception.serve();
  Guest leaving = reception.serve();
  reception->on_violation(*reception.connection(), "an offence");
  Guest control = reception.control();
  Guest half_open = reception.connect();
  reception->end_all({.code = Code::kUnavailable, .message = "the daemon is stopping"});
  for (Guest* const each : {&client, &control, &half_open}) {
    CHECK(each->goodbye() == Code::kUnavailable);
    const auto next = each->hear();
    REQUIRE(next);
    CHECK(next->empty());
  }
  CHECK(leaving.goodbye() == Code::kInvalidArgument);
  CHECK(access(reception.path().c_str(), F_OK) != 0);
  reception.let_go();
}

}  // namespace
}  // namespace nvr::daemon
