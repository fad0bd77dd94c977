// What a client can write into W: whatever it is, it ends that client, by name, and nobody else.
#include <fcntl.h>
#include <sys/mman.h>

#include <catch2/catch.hpp>
#include <functional>

#include "tests/hostile/scene.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using shm::Command;
using shm::DescriptorKind;
using shm::kFirstIndex;
using shm::Opcode;

constexpr char kNotLent[] = "return of a slot that was not lent";
constexpr char kTooFar[] = "command ring moved further than it is long";

struct Offence {
  const char* reason;  // what GOODBYE and the log say
  std::function<void(RawClient&, RecordingId)> commit;
};

Command open_command(RecordingId recording, std::uint32_t generation = kFirstIndex + 1) {
  return {.opcode = Opcode::kOpen,
          .generation = generation,
          .recording = recording.composite(),
          .end = shm::kSlotBytes};
}

void read_to_the_end(RawClient& client, std::uint32_t stream, RecordingId recording) {
  client.open(stream, recording, 0, 100);
  for (;;) {
    const shm::Descriptor descriptor = client.take(stream);
    if (shm::is_terminal(descriptor.kind)) return;
    if (descriptor.kind == DescriptorKind::kChunk) client.give_back(stream, descriptor.slot);
  }
}

const std::vector<Offence>& offences() {
  static const std::vector<Offence> all = {
      {kTooFar,
       [](RawClient& c, RecordingId) {
         c.w().write_header().command_tail = kFirstIndex + c.w().geometry().command_capacity() + 1;
       }},
      {kTooFar, [](RawClient& c, RecordingId) { c.w().write_header().command_tail = kFirstIndex - 1; }},
      {kTooFar,
       [](RawClient& c, RecordingId) { c.w().write_header().command_tail = kFirstIndex ^ (1u << 31); }},
      {"command with an unknown opcode",  // cells that nobody has written
       [](RawClient& c, RecordingId) { c.w().write_header().command_tail = kFirstIndex + 1; }},
      {"command for a stream that the connection does not have",
       [](RawClient& c, RecordingId) { c.post({.opcode = Opcode::kClose, .stream = UINT32_MAX}); }},
      {"OPEN with an empty range",
       [](RawClient& c, RecordingId id) {
         Command command = open_command(id);
         command.begin = command.end;
         c.post(command);
       }},
      {"OPEN with a generation out of order",  // one is left out
       [](RawClient& c, RecordingId id) { c.post(open_command(id, kFirstIndex + 2)); }},
      {"OPEN with a generation out of order",  // one comes again
       [](RawClient& c, RecordingId id) {
         read_to_the_end(c, 0, id);
         c.post(open_command(id, c.generation(0)));
       }},
      {"OPEN of a stream whose last generation has not ended",
       [](RawClient& c, RecordingId id) {
         c.starve(0, id);
         c.open(0, id, 0, 1);
       }},
      {"CLOSE of a generation that is not the last one",
       [](RawClient& c, RecordingId id) {
         c.starve(0, id);
         c.post({.opcode = Opcode::kClose, .generation = c.generation(0) - 1});
       }},
      {kNotLent,  // twice
       [](RawClient& c, RecordingId id) {
         c.starve(0, id);
         // Both at once: between two returns the daemon could lend the slot anew.
         shm::Word* const ring = c.w().returns(0);
         const std::uint32_t mask = c.w().geometry().slots - 1;
         ring[kFirstIndex & mask] = 0;
         ring[(kFirstIndex + 1) & mask] = 0;
         c.w().credit(0).return_tail = kFirstIndex + 2;
       }},
      {kNotLent,  // beyond the window
       [](RawClient& c, RecordingId id) {
         c.starve(0, id);
         c.give_back(0, c.w().geometry().slots);
       }},
      {kNotLent,  // before anything was lent
       [](RawClient& c, RecordingId id) {
         c.give_back(0, 0);
         c.open(0, id, 0, shm::kSlotBytes);
       }},
      {kNotLent,  // another stream's, and every stream of the offender waits for credit
       [](RawClient& c, RecordingId id) {
         for (std::uint32_t stream = 0; stream < c.w().geometry().streams; ++stream) c.starve(stream, id);
         c.give_back(0, c.w().geometry().slots + 1);
       }},
      {kNotLent,  // the return ring's index alone
       [](RawClient& c, RecordingId id) {
         c.starve(0, id);
         c.w().credit(0).return_tail = kFirstIndex + c.w().geometry().slots + 1;
       }},
  };
  return all;
}

TEST_CASE("each offence in shared memory ends the offender, who is told why") {
  Scene scene;
  const RecordingId id = scene.file().id;
  std::uint64_t violations = 0;
  for (const Offence& offence : offences()) {
    CAPTURE(violations, offence.reason);
    CHECK(scene.attack([&](const Reporter&) {
      RawClient client(scene.socket());
      offence.commit(client, id);
      client.ring();
      const std::string words = client.last_words();
      Reporter::require(words.find(offence.reason) != std::string::npos, "GOODBYE says: " + words);
    }) == "");
    CHECK(scene.daemon().wait_for_log(offence.reason));
    REQUIRE(scene.daemon().is_running());
    CHECK(scene.daemon().total("violations") == ++violations);
  }
  CHECK(scene.problem_after() == "");
}

TEST_CASE("offences one after the other cost the client beside them little") {
  Scene scene;
  const RecordingId id = scene.file().id;
  std::size_t turn = 0;
  CHECK(scene.held_up_by([&] {
    RawClient client(scene.socket());
    offences()[turn++ % offences().size()].commit(client, id);
    client.ring();
    static_cast<void>(client.last_words());
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("absurd ranges are the stream's error and no offence") {
  Scene scene;
  const RecordingId id = scene.file().id;
  CHECK(scene.attack([&](const Reporter&) {
    RawClient client(scene.socket());
    constexpr std::uint64_t kMost = UINT64_MAX;
    constexpr std::uint64_t kMostSigned = INT64_MAX;
    for (const auto& [begin, end] : std::initializer_list<std::pair<std::uint64_t, std::uint64_t>>{
             {0, kMost},
             {kMost - 1, kMost},
             {kMostSigned, kMostSigned + 1},
             {kMostSigned - 1, kMostSigned},
             {0, kMostSigned},
             {kMostSigned + 1, kMost},
             {kMost / 2 - 65536, kMost / 2 + 65536}}) {
      client.open(0, id, begin, end);
      const shm::Descriptor answer = client.take(0);
      Reporter::require(answer.kind == DescriptorKind::kError &&
                            answer.code == static_cast<std::uint16_t>(Code::kOutOfRange),
                        "not OutOfRange: " + std::to_string(begin) + "-" + std::to_string(end));
    }
    read_to_the_end(client, 0, id);  // still served
  }) == "");
  CHECK(scene.daemon().total("violations") == 0);
  CHECK(scene.problem_after() == "");
}

TEST_CASE("CLOSE again and again is no offence, and a client goes on beside it") {
  Scene scene;
  CHECK(scene.held_up_by([client = std::shared_ptr<RawClient>(), &scene]() mutable {
    if (!client) client = std::make_shared<RawClient>(scene.socket());
    const std::uint32_t half = client->w().geometry().command_capacity() / 2;
    for (std::uint32_t i = 0; i < half; ++i)
      client->post({.opcode = Opcode::kClose, .generation = client->generation(0)});
    if (!client->is_served()) client.reset();  // it was too fast for the ring
  }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("noise all over W, under the daemon's eyes, harms nobody else") {
  Scene scene;
  const RecordingId id = scene.file().id;
  const std::uint64_t seed = test_random()();
  CHECK(scene.attack([&](const Reporter&) {
    Random random(seed);
    for (int round = 0; round < scaled(100, 20); ++round) {
      RawClient client(scene.socket());
      for (std::uint32_t stream = 0; stream < 3; ++stream) client.open(stream, id, 0, 20 * kChunkBytes);
      const auto w = client.all_of_w();
      // Words that matter, or any word; a value that is nearly right, or any.
      while (client.is_served()) {
        const std::uint64_t where = pick(random, 0, 2);
        const auto stream = static_cast<std::uint32_t>(pick(random, 0, 3));
        shm::Word& word =
            where == 0   ? client.w().write_header().command_tail
            : where == 1 ? client.w().credit(stream).return_tail
                         : *reinterpret_cast<shm::Word*>(w.data() + 4 * pick(random, 0, w.size() / 4 - 1));
        word = pick(random, 0, 3) == 0 ? static_cast<std::uint32_t>(random())
                                       : word + static_cast<std::uint32_t>(pick(random, 0, 2));
        client.ring();
      }
    }
  }) == "");
  CHECK(scene.daemon().total("violations") > 0);
  CHECK(scene.problem_after() == "");
}

TEST_CASE("holes punched into W under the daemon's eyes harm nobody else") {
  Scene scene;
  const RecordingId id = scene.file().id;
  const std::string problem = scene.attack([&](const Reporter&) {
    for (int round = 0; round < scaled(200, 40); ++round) {
      RawClient client(scene.socket());
      const auto w = client.all_of_w();
      Reporter::require(ftruncate(client.w_fd(), 0) != 0, "W can be truncated");
      for (std::uint32_t stream = 0; stream < 3; ++stream) client.open(stream, id, 0, 20 * kChunkBytes);
      for (int i = 0; i < 100 && client.is_served(); ++i) {
        // Refused or not, the daemon reads on.
        static_cast<void>(fallocate(client.w_fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                                    static_cast<off_t>(w.size())));
        static_cast<void>(madvise(w.data(), w.size(), MADV_REMOVE));
        client.w().write_header().command_tail = shm::kFirstIndex + 3;
        client.ring();
      }
    }
  });
  CHECK(problem == "");
  CHECK(scene.problem_after() == "");
}

}  // namespace
}  // namespace nvr::test
