#include "tests/hostile/scene.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

#include "tests/support/streams.h"

namespace nvr::test {
namespace {

constexpr int kLeastSteps = 10;  // of an attack
constexpr ConnectOptions kSmall = {.streams = 2, .slots_per_stream = 8};

std::optional<uid_t> attacker_uid() {
  return geteuid() == 0 ? std::optional<uid_t>(kNobody) : std::nullopt;
}

std::vector<std::string> with_attacker_allowed(std::vector<std::string> arguments) {
  if (const auto uid = attacker_uid()) {
    arguments.emplace_back("--allow-uid");
    arguments.push_back(std::to_string(*uid));
  }
  return arguments;
}

}  // namespace

struct Bystander::Shared {
  std::atomic<std::uint64_t> chunks = 0;
  std::atomic<bool> should_end = false;
};

Bystander::Bystander(const std::string& socket, const RecordingFile& file) {
  void* const page = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw TestFailure("no memory to share");
  shared_ = new (page) Shared;
  process_ = ClientProcess::start([&](const Reporter&) {
    Client client = connect_to(socket, kSmall);
    while (!shared_->should_end) {
      Stream stream = open_stream(client, file);
      ChunkChecker checker(file, 0, file.size);
      while (auto next = stream.next()) {
        Reporter::require(next->has_value(), *next ? "" : to_string(next->error()));
        Reporter::require(checker.accept(**next), checker.problem());
        ++shared_->chunks;
      }
      Reporter::require(checker.is_complete(), "a stream ended early");
    }
  });
  if (!goes_on(1)) throw TestFailure("the bystander does not start");
}

Bystander::~Bystander() {
  process_.reset();
  munmap(shared_, sizeof(Shared));
}

std::uint64_t Bystander::chunks() const {
  return shared_->chunks;
}

bool Bystander::goes_on(std::uint64_t chunks) const {
  const std::uint64_t before = shared_->chunks;
  return wait_until([&] { return shared_->chunks >= before + chunks; });
}

std::string Bystander::problem() {
  shared_->should_end = true;
  return process_->failure();
}

Scene::Scene(std::vector<std::string> arguments, std::optional<rlim_t> max_descriptors)
    : file_(site_.record({1, 1}, 40 * kChunkBytes + 17)) {
  DaemonOptions options = site_.options(with_attacker_allowed(std::move(arguments)));
  options.max_descriptors = max_descriptors;
  daemon_.emplace(options);
  {
    Client warm_up = connect_to(*daemon_, kSmall);
    if (const auto problem = problem_reading(warm_up, file_); !problem.empty()) throw TestFailure(problem);
  }
  if (!daemon_->wait_for_total("shared_bytes", 0)) throw TestFailure("memory of nobody");
  baseline_.emplace(daemon_->pid());
  bystander_.emplace(daemon_->socket(), file_);
}

std::string Scene::attack(const ClientProcess::Body& attack) const {
  return ClientProcess::start(attack, attacker_uid()).failure();
}

std::string Scene::held_up_by(const std::function<void()>& step) const {
  ClientProcess attacker = ClientProcess::start(
      [&](const Reporter& reporter) {
        step();
        reporter.line("attacking");
        for (int i = 1; i < kLeastSteps; ++i) step();
        reporter.line("attacked");
        for (;;) step();
      },
      attacker_uid());
  static_cast<void>(attacker.next_line());
  for (int i = 0; i < 10; ++i)
    if (!bystander_->goes_on()) return "the bystander is stuck";
  static_cast<void>(attacker.next_line());
  if (!bystander_->goes_on()) return "the bystander gets stuck";
  attacker.signal(SIGKILL);
  const std::string end = attacker.failure();
  return end.starts_with("signal 9") ? "" : "the attacker: " + end;
}

std::string Scene::problem_after() {
  if (!daemon_->is_running()) return "the daemon has died: " + daemon_->log();
  if (!bystander_->goes_on()) return "the bystander is stuck";
  if (const auto problem = bystander_->problem(); !problem.empty()) return "the bystander: " + problem;
  {
    Client next = connect_to(*daemon_, kSmall);
    if (const auto problem = problem_reading(next, file_); !problem.empty())
      return "the next client: " + problem;
  }
  for (const char* const total :
       {"connections_now", "streams_open", "shared_bytes", "held_bytes", "quarantined_bytes"}) {
    if (!daemon_->wait_for_total(total, 0)) return std::string(total) + " does not return to 0";
  }
  return baseline_->difference_after_waiting();
}

}  // namespace nvr::test
