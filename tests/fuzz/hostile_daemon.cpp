// The client against a daemon that writes anything into R and says anything on the socket. A program of bytes
// moves both: the user opens, reads, drops chunks and stops; the daemon answers rightly, nearly rightly, or
// with noise. Nothing waits.
//
// What must hold whatever the daemon does: a chunk is the next bytes of its stream and lies within R's slots;
// a stream that ended stays ended, and looks complete only if it is; and what the client writes into W keeps
// to the protocol.
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <optional>

#include "client/src/stream_reader.h"
#include "shm/clock.h"
#include "shm/command.h"
#include "shm/disk_state.h"
#include "shm/socket.h"
#include "tests/fuzz/target.h"
#include "tests/support/environment.h"

namespace nvr::test {
namespace {

using internal::StreamReader;
using shm::Descriptor;
using shm::DescriptorKind;
using shm::kSlotBytes;

constexpr shm::Geometry kGeometry{.streams = 2, .slots = 4};
constexpr std::size_t kMostReaders = 3;  // one more than the connection has streams
constexpr std::size_t kMostHeld = 12;
constexpr std::uint64_t kPast_ns = 1;  // as a deadline

template <class T>
T must(Result<T> result) {
  if (!result) throw TestFailure(result.error().message);
  return std::move(*result);
}

struct SocketPair {
  SocketPair() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
      throw TestFailure("cannot create sockets");
    client.reset(ends[0]);
    daemon.reset(ends[1]);
  }
  shm::UniqueFd client;
  shm::UniqueFd daemon;
};

// The daemon's end: what is right of it comes from the commands that it takes from W.
class Daemon {
 public:
  Daemon()
      : r_segment_(must(shm::OwnedSegment::create(shm::SegmentKind::kRead, kGeometry.read_bytes()))),
        w_segment_(must(shm::OwnedSegment::create(shm::SegmentKind::kWrite, kGeometry.write_bytes()))),
        doorbell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        r_(r_segment_.mapping().data(), kGeometry),
        w_(w_segment_.mapping().data(), kGeometry),
        commands_(w_.write_header(), w_.commands(), kGeometry.command_capacity(), shm::kFirstIndex) {
    for (std::uint32_t i = 0; i < kGeometry.streams; ++i)
      streams_.push_back({.descriptors = {r_.publication(i), r_.descriptors(i),
                                          kGeometry.descriptor_capacity(), shm::kFirstIndex},
                          .returns = {w_.credit(i), w_.returns(i), kGeometry.slots, shm::kFirstIndex}});
  }

  void welcome(int socket) const {
    shm::Welcome welcome;
    welcome.streams = kGeometry.streams;
    welcome.slots_per_stream = kGeometry.slots;
    welcome.first_index = shm::kFirstIndex;
    welcome.read_bytes = r_segment_.bytes();
    welcome.write_bytes = w_segment_.bytes();
    const auto r = must(r_segment_.descriptor_for_client());
    const auto w = must(w_segment_.descriptor_for_client());
    if (!shm::send_message(socket, welcome, std::array{r.get(), w.get(), doorbell_.get()}))
      throw TestFailure("cannot send WELCOME");
  }

  // Takes what the client has written into W, and objects to what no client may write.
  void look(Judgement& judgement) {
    const bool moved_well = commands_.take([&](const shm::Command& command) {
      const auto offence = shm::offence_of(command, kGeometry.streams);
      if (offence) judgement.object(std::string("the client's command: ") + *offence);
      if (!offence) take(streams_[command.stream], command, judgement);
      return !offence.has_value();
    });
    judgement.require(moved_well, "the client's command ring moved too far");
  }

  // What a daemon would publish next that keeps to the protocol; `choice` where there is one.
  [[nodiscard]] Descriptor right_descriptor(std::uint32_t index, std::uint32_t choice) {
    Stream& stream = streams_[index];
    const shm::Command& open = stream.open;
    Descriptor next{.generation = open.generation, .kind = DescriptorKind::kOpened, .file_inode = 1};
    const bool to_end = (open.flags & shm::kOpenToEnd) != 0;
    next.file_size = to_end ? open.begin + std::uint64_t{choice} * (kSlotBytes / 2) : open.end + choice;
    if (!stream.is_opened) {
      stream.is_opened = true;
      stream.next = open.begin;
      stream.end = to_end ? next.file_size : open.end;
      return next;
    }
    if (choice % 16 == 15) next.kind = DescriptorKind::kClosed;
    if (choice % 16 == 14) {
      next.kind = DescriptorKind::kError;
      next.code = static_cast<std::uint16_t>(choice / 16);
      next.detail = static_cast<shm::Detail>(choice / 16);
      next.sys_errno = 5;
      next.offset = stream.next;
    }
    if (choice % 16 >= 14) return next;
    next.kind = stream.next < stream.end ? DescriptorKind::kChunk : DescriptorKind::kEnd;
    if (next.kind == DescriptorKind::kEnd) return next;
    next.slot = static_cast<std::uint16_t>(stream.chunks++ % kGeometry.slots);
    next.offset = stream.next;
    next.length = static_cast<std::uint32_t>(std::min<std::uint64_t>(kSlotBytes, stream.end - stream.next));
    stream.next += next.length;
    return next;
  }

  void publish(std::uint32_t index, const Descriptor& descriptor) {
    streams_[index].descriptors.put(descriptor);
    streams_[index].descriptors.publish();
  }
  void move_head(std::uint32_t index, std::uint32_t by) const { r_.publication(index).head.fetch_add(by); }
  void write_anything(Program& program) const {
    // Before the slots, where everything lies that the client believes or does not.
    const std::uint64_t words = kGeometry.slot_offset(0, 0) / sizeof(shm::Word);
    auto* const all = reinterpret_cast<shm::Word*>(r_segment_.mapping().data());
    all[program.take<std::uint16_t>() % words].store(program.take<std::uint32_t>());
  }
  void set_disk_state(Program& program) const {
    shm::OldestOperation oldest{.operation = static_cast<shm::DiskOperation>(program.upto(3)),
                                .since_ns = program.take<std::uint64_t>(),
                                .recording = program.take<std::uint64_t>(),
                                .offset = program.take<std::uint64_t>()};
    oldest.stuck_ns = oldest.since_ns;
    shm::write_disk_state(r_.read_header().disk, oldest, program.upto(1) != 0);
  }
  void beat() const { r_.read_header().heartbeat.fetch_add(1); }
  void sleep(bool asleep) const { r_.read_header().need_doorbell.store(asleep ? 1 : 2); }

 private:
  struct Stream {
    shm::DescriptorProducer descriptors;
    shm::ReturnConsumer returns;
    std::uint32_t generation = shm::kFirstIndex;
    shm::Command open = {};
    bool is_opened = false;  // OPENED was published
    std::uint64_t next = 0;
    std::uint64_t end = 0;
    std::uint32_t chunks = 0;
  };

  static void take(Stream& stream, const shm::Command& command, Judgement& judgement) {
    if (command.opcode == shm::Opcode::kOpen) {
      judgement.require(command.generation == ++stream.generation, "the client left a generation out");
      stream.open = command;
      stream.is_opened = false;
      return;
    }
    judgement.require(command.generation == stream.generation, "the client closes another generation");
    if (command.opcode == shm::Opcode::kFinish)
      judgement.require((stream.open.flags & shm::kOpenFollow) != 0, "FINISH of what does not follow");
  }

  shm::OwnedSegment r_segment_;
  shm::OwnedSegment w_segment_;
  shm::UniqueFd doorbell_;
  shm::WritableView r_;
  shm::ReadableView w_;
  shm::CommandConsumer commands_;
  std::vector<Stream> streams_;
};

// A stream, and what must be true of it.
struct Reader {
  std::unique_ptr<StreamReader> stream;
  OpenRequest request;
  bool stat_only = false;
  std::uint64_t position = 0;
  bool has_ended = false;
  bool was_stopped = false;

  [[nodiscard]] bool follows() const { return request.follow.count() > 0; }
};

class Play {
 public:
  Play(std::span<const std::byte> input, Judgement& judgement) : program_(input), judgement_(judgement) {
    daemon_.welcome(sockets_.daemon.get());
    const ConnectOptions options = {.streams = kGeometry.streams, .slots_per_stream = kGeometry.slots};
    connection_ = must(internal::Connection::establish(std::move(sockets_.client), "here", options,
                                                       internal::deadline_of(options)));
    session_ = must(internal::Session::over(connection_, "here", options));
  }

  void run() {
    while (!program_.has_ended() && judgement_.problem().empty()) {
      const std::uint32_t what = program_.upto(15);
      if (what < 8)
        move_user(what);
      else
        move_daemon(what);
      daemon_.look(judgement_);
    }
    // In any order: chunks outlive their streams, and both the session.
    if (program_.upto(1) == 0) chunks_.clear();
    readers_.clear();
    daemon_.look(judgement_);
    session_.reset();
  }

 private:
  // ---- The user

  void move_user(std::uint32_t what) {
    if (what == 0) return open();
    if (what == 1) return dispatch();
    if (what == 2 && !chunks_.empty()) {
      chunks_.erase(chunks_.begin() + program_.upto(static_cast<std::uint32_t>(chunks_.size()) - 1));
      return;
    }
    if (readers_.empty()) return open();
    Reader& reader = readers_[program_.upto(static_cast<std::uint32_t>(readers_.size()) - 1)];
    switch (what) {
      case 3:
        return ask_for_facts(reader);
      case 4:
        return stop(reader);
      case 5:
        std::swap(reader, readers_.back());
        return readers_.pop_back();
      case 6:
        return read(reader, program_.upto(7) == 0 ? kPast_ns : internal::kNow);
      default:
        for (int i = 0; i < 3; ++i) read(reader, internal::kNow);
    }
  }

  void open() {
    if (readers_.size() == kMostReaders) return;
    OpenRequest request = {.recording = RecordingId::from_composite(1 + program_.upto(3))};
    request.begin = std::uint64_t{program_.take<std::uint8_t>()} * 1000;
    const std::uint32_t how = program_.take<std::uint8_t>();
    request.end = how % 4 == 0 ? kToEnd : request.begin + 1 + how * (kSlotBytes / 8);
    if (how % 8 >= 6) request.follow = std::chrono::milliseconds(how);
    const bool stat_only = !(request.follow.count() > 0) && how % 16 == 12;
    auto place = session_->claim_place();
    if (!place) {
      const Code code = place.error().code;
      judgement_.require(code == Code::kResourceExhausted || code == Code::kUnavailable, "refused strangely");
      return judgement_.reach("open refused");
    }
    const std::uint64_t begin = request.begin;
    auto stream = std::make_unique<StreamReader>(session_, request, std::nullopt);
    stream->begin(std::move(*place), stat_only);
    readers_.push_back(
        {.stream = std::move(stream), .request = request, .stat_only = stat_only, .position = begin});
  }

  void read(Reader& reader, std::uint64_t deadline_ns) {
    if (chunks_.size() == kMostHeld) chunks_.erase(chunks_.begin());
    auto next = reader.stream->next(deadline_ns);
    if (next && *next) return take_chunk(reader, std::move(**next));
    if (next) return take_error(reader, next->error());
    if (!reader.has_ended && !reader.was_stopped) check_complete(reader);
    reader.has_ended = true;
  }

  void take_chunk(Reader& reader, Chunk chunk) {
    judgement_.reach("chunk");
    judgement_.require(!reader.has_ended, "a chunk after the end");
    const auto bytes = chunk.bytes();
    judgement_.require(chunk.offset() == reader.position, "a chunk that is not the next one");
    judgement_.require(!bytes.empty() && bytes.size() <= kSlotBytes, "a chunk of a wrong size");
    judgement_.require(bytes.size() <= reader.request.end - reader.position, "a chunk beyond the range");
    // Where it lies.
    const std::byte* const slots = connection_->slot_bytes(0, 0, 0).data();
    const std::uint64_t all = std::uint64_t{kGeometry.streams} * kGeometry.slots * kSlotBytes;
    const auto at = static_cast<std::uint64_t>(bytes.data() - slots);
    judgement_.require(at < all && at % kSlotBytes == 0, "a chunk that is no slot of R");
    reader.position += bytes.size();
    static_cast<void>(bytes.front() == bytes.back());  // both are mapped
    chunks_.push_back(std::move(chunk));
  }

  void take_error(Reader& reader, const Error& error) {
    const bool goes_on = error.code == Code::kDeadlineExceeded || error.code == Code::kResourceExhausted;
    judgement_.require(error.code != Code::kOk && !error.message.empty(), "an error that is none");
    judgement_.require(!reader.has_ended, "an error after the end");
    if (error.code == Code::kResourceExhausted &&
        error.message.find("window are held") == std::string::npos) {
      reader.has_ended = true;  // the daemon's word
      return judgement_.reach("error of the daemon's");
    }
    if (goes_on)
      return judgement_.reach(error.code == Code::kDeadlineExceeded ? "nothing yet" : "window held");
    reader.has_ended = true;
    const auto broken = error.message.find("broke the protocol: ");
    judgement_.reach(broken != std::string::npos ? error.message.substr(broken) : "error");
  }

  // The stream says that this was all.
  void check_complete(const Reader& reader) {
    judgement_.reach("complete");
    const auto info = reader.stream->info(internal::kNow);
    if (!info) return judgement_.object("a complete stream of an unknown file");
    if (reader.follows() || reader.stat_only) return;
    const std::uint64_t end = reader.request.end == kToEnd ? info->size : reader.request.end;
    judgement_.require(reader.position == end, "a stream that lacks bytes looks complete");
  }

  void ask_for_facts(Reader& reader) {
    const auto info = reader.stream->info(internal::kNow);
    if (!info) return judgement_.require(info.error().code != Code::kOk, "an error that is none");
    judgement_.reach("facts");
    const std::uint64_t end = reader.request.end == kToEnd ? reader.request.begin : reader.request.end;
    judgement_.require(reader.follows() || end <= info->size, "a file that does not hold the range");
  }

  void stop(Reader& reader) {
    const std::uint32_t how = program_.upto(2);
    if (how == 2) return reader.stream->finish();
    reader.stream->stop(how == 0 ? Code::kOk : Code::kCancelled);
    reader.was_stopped = true;
  }

  void dispatch() {
    const auto dispatched = session_->dispatch();
    if (!dispatched) {
      judgement_.require(dispatched.error().code == Code::kUnavailable, "ended strangely");
      judgement_.reach(dispatched.error().message.find("ended the connection") != std::string::npos
                           ? "GOODBYE"
                           : "the daemon has gone");
    }
    if (const auto stuck = session_->stuck_operation()) {
      judgement_.require(stuck->operation != shm::DiskOperation::kNone, "stuck on nothing");
      judgement_.reach("stuck");
    }
  }

  // ---- The daemon

  void move_daemon(std::uint32_t what) {
    const std::uint32_t stream = program_.upto(kGeometry.streams - 1);
    switch (what) {
      case 8:
      case 9:
        return publish(stream, false);
      case 10:
        for (int i = 0; i < 4; ++i) publish(stream, false);
        return;
      case 11:
        return publish(stream, true);
      case 12:
        return daemon_.move_head(stream, static_cast<std::uint32_t>(program_.take<std::int8_t>()));
      case 13:
        return program_.upto(1) == 0 ? daemon_.write_anything(program_) : daemon_.set_disk_state(program_);
      case 14:
        program_.upto(1) == 0 ? daemon_.beat() : daemon_.sleep(program_.upto(1) == 0);
        return;
      default:
        return say_something();
    }
  }

  void publish(std::uint32_t stream, bool with_noise) {
    Descriptor descriptor = daemon_.right_descriptor(stream, program_.take<std::uint8_t>());
    if (with_noise) {
      auto bytes = std::bit_cast<std::array<std::uint8_t, sizeof(Descriptor)>>(descriptor);
      for (std::uint32_t changes = 1 + program_.upto(2); changes > 0; --changes)
        bytes.at(program_.upto(sizeof(Descriptor) - 1)) = program_.take<std::uint8_t>();
      descriptor = std::bit_cast<Descriptor>(bytes);
    }
    daemon_.publish(stream, descriptor);
  }

  void say_something() {
    shm::Goodbye goodbye;
    goodbye.code = program_.take<std::uint8_t>();
    std::ranges::copy(text_of(program_.take_bytes(program_.upto(8))), goodbye.text);
    const int socket = sockets_.daemon.get();
    switch (program_.upto(4)) {
      case 0:
        static_cast<void>(shm::send_message(socket, goodbye).has_value());
        return;
      case 1:
        shutdown(socket, SHUT_RDWR);
        return;
      case 2:
        static_cast<void>(shm::send_message(socket, program_.take_bytes(program_.upto(255))).has_value());
        return;
      default:
        static_cast<void>(shm::send_message(socket, shm::Published{}).has_value());
    }
  }

  Program program_;
  Judgement& judgement_;
  SocketPair sockets_;
  Daemon daemon_;
  std::shared_ptr<internal::Connection> connection_;
  std::shared_ptr<internal::Session> session_;
  std::vector<Reader> readers_;
  std::vector<Chunk> chunks_;
};

void run(std::span<const std::byte> input, Judgement& judgement) {
  Play(input, judgement).run();
}

}  // namespace

const FuzzTarget hostile_daemon_target = {
    "hostile_daemon",
    run,
    {"chunk", "complete", "facts", "nothing yet", "window held", "open refused", "stuck", "GOODBYE",
     "the daemon has gone", "error", "broke the protocol: the descriptor ring moved too far",
     "broke the protocol: a descriptor of another generation",
     "broke the protocol: a descriptor out of order", "broke the protocol: a chunk that is not the next one",
     "broke the protocol: a file that does not hold the range"}};

}  // namespace nvr::test
