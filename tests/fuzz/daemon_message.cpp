// Messages from a daemon on the socket, WELCOME and later ones, as the client library and nvr-readerctl
// decode them. The input says which messages are sent. All are sent before the first is read, so nothing
// waits.
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cstring>

#include "client/src/connection.h"
#include "shm/segment.h"
#include "shm/socket.h"
#include "tests/fuzz/target.h"
#include "tests/support/environment.h"
#include "tools/ctl/control_session.h"

namespace nvr::test {
namespace {

constexpr shm::Geometry kGeometry{.streams = 1, .slots = 2};
constexpr std::size_t kPrefix = offsetof(shm::StatusPart, text);

template <class Message>
std::vector<std::byte> bytes_of(const Message& message) {
  const auto bytes = std::as_bytes(std::span(&message, 1)).first(message.header.length);
  return {bytes.begin(), bytes.end()};
}

// What a daemon passes along with WELCOME.
struct Memory {
  shm::OwnedSegment r = shm::OwnedSegment::create(shm::SegmentKind::kRead, kGeometry.read_bytes()).value();
  shm::OwnedSegment w = shm::OwnedSegment::create(shm::SegmentKind::kWrite, kGeometry.write_bytes()).value();
  shm::UniqueFd doorbell{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  shm::UniqueFd r_fd = r.descriptor_for_client().value();
  shm::UniqueFd w_fd = w.descriptor_for_client().value();
};
const Memory memory;  // from the start, so that no test case leaks its descriptors

class Speaker {
 public:
  explicit Speaker(Program& program) : program_(program) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
      throw TestFailure("cannot create sockets");
    client.reset(ends[0]);
    daemon_.reset(ends[1]);
  }

  // WELCOME, or something in its place.
  void greet(bool with_memory) {
    shm::Welcome welcome;
    welcome.first_index = shm::kFirstIndex;
    if (with_memory) {
      welcome.streams = kGeometry.streams;
      welcome.slots_per_stream = kGeometry.slots;
      welcome.read_bytes = kGeometry.read_bytes();
      welcome.write_bytes = kGeometry.write_bytes();
    }
    auto message = bytes_of(welcome);
    change(message);
    const std::array descriptors = {memory.r_fd.get(), memory.w_fd.get(), memory.doorbell.get()};
    // Too few, or in the wrong order.
    const std::uint32_t odd = program_.upto(7);
    const std::array swapped = {descriptors[1], descriptors[0], descriptors[2]};
    const std::size_t count = !with_memory ? (odd == 7 ? 1 : 0) : odd == 7 ? program_.upto(2) : 3;
    static_cast<void>(shm::send_message(daemon_.get(), std::span<const std::byte>(message),
                                        std::span(odd == 6 ? swapped : descriptors).first(count))
                          .has_value());
  }

  // Any number of messages.
  void go_on() {
    for (int i = 0; i < 16 && !program_.has_ended(); ++i) say();
  }

  // The text of the parts of an answer so far, each with the total that it names.
  struct Part {
    std::uint32_t total;
    std::string text;
  };
  std::vector<Part> parts;
  shm::UniqueFd client;

 private:
  void say() {
    std::vector<std::byte> message;
    switch (program_.upto(7)) {
      case 0: {
        shm::Goodbye goodbye;
        goodbye.code = program_.take<std::uint8_t>();
        std::ranges::fill(goodbye.text, program_.take<char>());
        message = bytes_of(goodbye);
        break;
      }
      case 1:
        message = bytes_of(shm::Published{});
        break;
      case 2: {
        const auto noise = program_.take_bytes(program_.upto(255));
        message.assign(noise.begin(), noise.end());
        break;
      }
      default:
        message = part();
    }
    change(message);
    if (!shm::send_message(daemon_.get(), std::span<const std::byte>(message))) return;
    const auto header = shm::check_header(message);
    if (header && header->type == shm::MessageType::kStatusPart && message.size() >= kPrefix) {
      std::uint32_t total = 0;
      memcpy(&total, message.data() + offsetof(shm::StatusPart, total), sizeof(total));
      parts.push_back({total, std::string(text_of(std::span(message).subspan(kPrefix)))});
    }
  }

  std::vector<std::byte> part() {
    shm::StatusPart part;
    const std::uint32_t length = program_.take<std::uint16_t>() % (shm::kStatusPartBytes + 1);
    part.header.length = static_cast<std::uint16_t>(kPrefix + length);
    part.offset = sent_;
    sent_ += length;
    part.total = sent_ + program_.upto(3) * 7;
    std::fill_n(part.text, length, program_.take<char>());
    return bytes_of(part);
  }

  void change(std::vector<std::byte>& message) {
    if (program_.upto(3) != 3 || message.empty()) return;
    for (std::uint32_t changes = 1 + program_.upto(2); changes > 0; --changes)
      message[program_.take<std::uint16_t>() % message.size()] = program_.take<std::byte>();
  }

  Program& program_;
  shm::UniqueFd daemon_;
  std::uint32_t sent_ = 0;
};

void connect(Program& program, Judgement& judgement) {
  Speaker daemon(program);
  daemon.greet(true);
  const ConnectOptions options = {.streams = kGeometry.streams,
                                  .slots_per_stream = kGeometry.slots,
                                  .timeout = std::chrono::milliseconds(0)};
  const auto connection = internal::Connection::establish(std::move(daemon.client), "here", options,
                                                          internal::deadline_of(options));
  if (!connection) {
    const Code code = connection.error().code;
    judgement.require(code > Code::kOk && code <= Code::kDataLoss, "refused with a code that is none");
    judgement.require(!connection.error().message.empty(), "refused without a word");
    return judgement.reach("not connected");
  }
  judgement.reach("connected");
  judgement.require((*connection)->geometry().streams == kGeometry.streams &&
                        (*connection)->geometry().slots == kGeometry.slots,
                    "another geometry than was asked for");
  judgement.require((*connection)->directory().size() < sizeof(shm::Welcome::directory),
                    "a name without an end");
  daemon.go_on();
  const auto dispatched = (*connection)->dispatch();
  if (dispatched) return;
  judgement.require(dispatched.error().code == Code::kUnavailable,
                    "ended with another code than Unavailable");
  judgement.reach("ended");
}

void ask(Program& program, Judgement& judgement) {
  Speaker daemon(program);
  daemon.greet(false);
  daemon.go_on();
  auto session = tools::ControlSession::over(std::move(daemon.client), "here", std::chrono::milliseconds(0));
  if (!session) return;
  judgement.reach("greeted");
  const auto answer = session->status();
  if (!answer) return judgement.reach("no answer");
  judgement.reach(daemon.parts.size() > 1 ? "answer in parts" : "answer");
  std::string text;
  for (const Speaker::Part& part : daemon.parts) {
    judgement.require(part.total == answer->size(), "an answer of parts that do not belong together");
    text += part.text;
    if (text.size() >= answer->size()) break;
  }
  judgement.require(text == *answer, "an answer that is not what was sent");
}

void run(std::span<const std::byte> input, Judgement& judgement) {
  Program program(input);
  if (program.upto(1) == 0)
    connect(program, judgement);
  else
    ask(program, judgement);
}

}  // namespace

const FuzzTarget daemon_message_target = {
    "daemon_message",
    run,
    {"connected", "not connected", "ended", "greeted", "answer", "answer in parts", "no answer"}};

}  // namespace nvr::test
