// A client that does a little of everything, built with steps; and one process of it for each kill.
//
//   nvr-steps-client SOCKET SIZE SEED census               once, to its end (NVR_STEP_CENSUS tells its steps)
//   nvr-steps-client SOCKET SIZE SEED kill FROM COUNT STEP...
//       kills number FROM and on: each step in turn, at its first, second and third time, then at random
//       ones. Prints how many were killed, and how many had ended before they came there.
#include "nvr/client.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tests/kill_steps/step.h"

namespace nvr::test {
namespace {

constexpr unsigned kAtATime = 4;
constexpr unsigned kExhaustiveTimes = 3;
constexpr unsigned kLatestTime = 12;

using Random = std::mt19937_64;

unsigned upto(Random& random, unsigned low, unsigned high) {
  return std::uniform_int_distribution<unsigned>(low, high)(random);
}
Deadline soon() {
  return Clock::now() + std::chrono::seconds(10);
}

// In an event loop: nothing blocks but poll().
void take_by_event_loop(Client& client, Stream& stream, unsigned chunks) {
  if (!client.dispatch()) return;  // from now on it wants to be told
  while (chunks > 0) {
    const auto next = stream.try_next();
    if (!next) return;
    if (*next) {
      --chunks;
      continue;
    }
    if (next->error().code != Code::kDeadlineExceeded) return;
    pollfd entry = {.fd = client.native_handle(), .events = POLLIN, .revents = 0};
    if (poll(&entry, 1, 10'000) <= 0 || !client.dispatch()) return;
  }
}

int use(const std::string& socket, std::uint64_t size, std::uint64_t seed) {
  Random random(seed);
  auto client =
      Client::connect(socket, {.streams = upto(random, 1, 3), .slots_per_stream = 1U << upto(random, 1, 3)});
  if (!client) return 1;
  std::vector<Chunk> held;
  for (int turn = 0; turn < 3; ++turn) {
    const std::uint64_t begin = std::uniform_int_distribution<std::uint64_t>(0, size - 1)(random);
    auto stream = client->open({.recording = {1, turn == 1 ? 9U : 1U}, .begin = begin});
    if (!stream) return 1;
    const unsigned chunks = upto(random, 0, 9);
    if (turn == 2) {
      take_by_event_loop(*client, *stream, chunks);
    } else {
      for (unsigned i = 0; i < chunks; ++i) {
        auto next = stream->next(soon());
        if (!next || !*next) break;
        if (upto(random, 0, 2) == 0) held.push_back(std::move(**next));
        if (held.size() > 1) held.erase(held.begin());
      }
    }
    if (upto(random, 0, 2) == 0) stream->cancel();
  }
  return 0;
}

struct Outcomes {
  unsigned killed = 0;
  unsigned ended = 0;
  unsigned failed = 0;
};

void await_one(Outcomes& outcomes) {
  int status = 0;
  if (wait(&status) < 0) return;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    ++outcomes.killed;
  else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    ++outcomes.ended;
  else
    ++outcomes.failed;
}

int kill_many(const std::string& socket, std::uint64_t size, std::uint64_t seed, unsigned from,
              unsigned count, const std::vector<std::string>& steps) {
  Outcomes outcomes;
  unsigned running = 0;
  for (unsigned i = from; i < from + count; ++i) {
    if (running == kAtATime) {
      await_one(outcomes);
      --running;
    }
    Random random(seed + i);
    const bool in_turn = i < kExhaustiveTimes * steps.size();
    const std::string& step =
        steps[in_turn ? i % steps.size() : upto(random, 0, static_cast<unsigned>(steps.size()) - 1)];
    const unsigned time =
        in_turn ? 1 + i / static_cast<unsigned>(steps.size()) : upto(random, 1, kLatestTime);
    const pid_t pid = fork();
    if (pid < 0) return 1;
    if (pid == 0) {
      plan_kill(step, time);
      _exit(use(socket, size, seed + i));
    }
    ++running;
  }
  for (; running > 0; --running) await_one(outcomes);
  std::printf("%u %u %u\n", outcomes.killed, outcomes.ended, outcomes.failed);
  return 0;
}

}  // namespace
}  // namespace nvr::test

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const std::string socket = argv[1];
  const std::uint64_t size = std::strtoull(argv[2], nullptr, 10);
  const std::uint64_t seed = std::strtoull(argv[3], nullptr, 10);
  if (std::string(argv[4]) == "census") {
    int worst = 0;
    for (std::uint64_t i = 0; i < 40; ++i) worst |= nvr::test::use(socket, size, seed + i);
    return worst;
  }
  if (argc < 8) return 2;
  return nvr::test::kill_many(socket, size, seed, static_cast<unsigned>(std::atoi(argv[5])),
                              static_cast<unsigned>(std::atoi(argv[6])), {argv + 7, argv + argc});
}
