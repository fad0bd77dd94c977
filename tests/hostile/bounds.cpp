// A user that takes as much as it can get: half-open handshakes, open files, memory of connections that have
// ended. Meanwhile root's questions are answered, and another user's clients are served.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <deque>
#include <nlohmann/json.hpp>

#include "tests/hostile/scene.h"
#include "tests/support/streams.h"

namespace nvr::test {
namespace {

using std::chrono::steady_clock;

constexpr uid_t kNeighbour = 65'533;
constexpr int kRounds = 11;
constexpr std::chrono::seconds kPrompt{scaled(1, 10)};
constexpr shm::Geometry kLeast{.streams = 1, .slots = 2};

std::vector<std::string> with_neighbour(std::vector<std::string> arguments = {}) {
  arguments.insert(arguments.end(), {"--allow-uid", std::to_string(kNeighbour)});
  return arguments;
}

// Does `once` over and over; each time must succeed, and the median must be prompt.
void require_prompt(const std::string& what, const std::function<void()>& once) {
  std::vector<steady_clock::duration> times;
  for (int i = 0; i < kRounds; ++i) {
    const auto begin = steady_clock::now();
    once();
    times.push_back(steady_clock::now() - begin);
  }
  std::ranges::nth_element(times, times.begin() + kRounds / 2);
  Reporter::require(times[kRounds / 2] < kPrompt, what + " takes too long");
}

// Runs `attack`, which says so when it has taken what it could, and goes on until it is killed.
// Returns the problem that others have with their service meanwhile; empty if none.
std::string problem_beside(const Scene& scene, const ClientProcess::Body& attack) {
  ClientProcess attacker = ClientProcess::start(attack, kNobody);
  if (const std::string line = attacker.next_line(); line != "attacking") return "the attacker: " + line;
  const std::string of_neighbour =
      ClientProcess::start(
          [&](const Reporter&) {
            require_prompt("1 MiB", [&] {
              Client client = connect_to(scene.socket(), {.streams = 1, .slots_per_stream = 8});
              const auto problem = problem_reading(client, scene.file(), 0, 1 << 20);
              Reporter::require(problem.empty(), problem);
            });
          },
          kNeighbour)
          .failure();
  std::string of_root;
  try {
    require_prompt("status", [&] { static_cast<void>(scene.daemon().status()); });
  } catch (const std::exception& error) {
    of_root = error.what();
  }
  attacker.signal(SIGKILL);
  const std::string end = attacker.failure();
  if (!end.starts_with("signal 9")) return "the attacker: " + end;
  if (!of_neighbour.empty()) return "another user: " + of_neighbour;
  return of_root.empty() ? "" : "root: " + of_root;
}

TEST_CASE("half-open handshakes of one user keep nobody else out", "[once]") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  Scene scene(with_neighbour({"--max-clients-per-uid", "32"}));
  CHECK(problem_beside(scene, [&](const Reporter& reporter) {
          shm::Hello hello;
          hello.streams = kLeast.streams;
          hello.slots_per_stream = kLeast.slots;
          std::deque<shm::UniqueFd> sockets;
          for (int i = 0;; ++i) {
            sockets.push_back(connect_raw(scene.socket()));
            // Half of them say HELLO, and then nothing.
            if (i % 2 == 0) static_cast<void>(shm::send_message(sockets.back().get(), hello));
            if (i == 200) reporter.line("attacking");
            if (i < 200) continue;
            sockets.pop_front();
            poll(nullptr, 0, 2);
          }
        }) == "");
  CHECK(scene.problem_after() == "");
}

// Opens a stream for the first time, and follows its file for ever.
void follow(RawClient& client, std::uint32_t stream, RecordingId recording) {
  shm::Command command;
  command.opcode = shm::Opcode::kOpen;
  command.stream = stream;
  command.generation = shm::kFirstIndex + 1;
  command.flags = shm::kOpenToEnd | shm::kOpenFollow;
  command.recording = recording.composite();
  command.quiet_ms = UINT64_MAX;
  client.post(command);
}

TEST_CASE("streams of one user that keep files open leave descriptors to all others") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  Scene scene(with_neighbour(), /*max_descriptors=*/1024);
  const RecordingFile empty = scene.record({1, 2}, 0);
  CHECK(problem_beside(scene, [&](const Reporter& reporter) {
          constexpr std::uint32_t kStreams = 200;
          std::deque<RawClient> clients;
          int opened = 0;
          int refused = 0;
          for (int i = 0; i < 8; ++i) {
            try {
              clients.emplace_back(scene.socket(), shm::Geometry{.streams = kStreams, .slots = 2});
            } catch (const TestFailure&) {
              break;  // no descriptor for another connection
            }
            for (std::uint32_t stream = 0; stream < kStreams; ++stream)
              follow(clients.back(), stream, empty.id);
            for (std::uint32_t stream = 0; stream < kStreams; ++stream) {
              const shm::Descriptor answer = clients.back().take(stream);
              if (answer.kind == shm::DescriptorKind::kOpened) {
                ++opened;
                continue;
              }
              Reporter::require(answer.kind == shm::DescriptorKind::kError &&
                                    answer.code == static_cast<std::uint16_t>(Code::kResourceExhausted) &&
                                    answer.detail == shm::Detail::kTooManyOpen,
                                "refused with another error");
              ++refused;
            }
          }
          Reporter::require(opened >= 200 && refused > 0,
                            std::to_string(opened) + " opened, " + std::to_string(refused) + " refused");
          reporter.line("attacking");
          for (;;) pause();
        }) == "");
  CHECK(scene.problem_after() == "");
}

TEST_CASE("memory of ended connections that one user keeps leaves descriptors to all others", "[once]") {
  if (geteuid() != 0) return skip_or_fail("clients of other users need root");
  // By what remains of the limit on open files, or by number.
  const bool is_few_clients = GENERATE(false, true);
  Scene scene(is_few_clients ? with_neighbour({"--max-clients-per-uid", "50"}) : with_neighbour(),
              /*max_descriptors=*/1024);
  CHECK(problem_beside(scene, [&](const Reporter& reporter) {
          std::vector<shm::UniqueFd> kept;
          std::string refusal;
          while (refusal.empty() && kept.size() < 1000) {
            const shm::UniqueFd socket = connect_raw(scene.socket());
            auto greeting = shm::greet(socket.get(), kLeast.streams, kLeast.slots, far_deadline_ns());
            if (!greeting)
              refusal = to_string(greeting.error());
            else
              kept.push_back(std::move(greeting->descriptors.at(0)));
          }
          const std::string bound = is_few_clients ? "--max-clients-per-uid" : "RLIMIT_NOFILE";
          Reporter::require(
              refusal.starts_with("ResourceExhausted") && refusal.find(bound) != std::string::npos, refusal);
          Reporter::require(kept.size() >= 50, std::to_string(kept.size()) + " kept");
          reporter.line("attacking");
          for (;;) pause();
        }) == "");
  CHECK(scene.problem_after() == "");
}

}  // namespace
}  // namespace nvr::test
