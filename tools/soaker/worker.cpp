#include "tools/soaker/worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <random>
#include <thread>

#include "nvr/client.h"
#include "shm/clock.h"

namespace nvr::soak {
namespace {

using std::chrono::milliseconds;

// A read that failed may be reported that much later.
constexpr std::uint64_t kLateNs = 5 * shm::kSecond;

class Worker {
 public:
  Worker(const WorkerSetup& setup, Ledger& ledger, Account& account)
      : setup_(setup), ledger_(ledger), account_(account), random_(setup.seed) {}

  void run() {
    while (goes_on()) {
      auto client =
          Client::connect(setup_.socket, {.streams = upto(1, 4), .slots_per_stream = 1u << upto(1, 5)});
      if (!client) return object("cannot connect: " + client.error().message);
      add(account_.connections);
      for (std::uint32_t i = upto(1, 20); i > 0 && goes_on(); --i) use(*client);
    }
  }

 private:
  struct Reading {
    Stream stream;
    OpenRequest request;
    std::uint64_t next = 0;
    std::uint64_t opened_ns = 0;
    std::uint32_t chunks_until_cancel = UINT32_MAX;
    bool is_cancelled = false;
    bool is_over = false;
    std::vector<Chunk> held;
  };

  std::uint32_t upto(std::uint32_t low, std::uint32_t high) {
    return std::uniform_int_distribution<std::uint32_t>(low, high)(random_);
  }
  bool happens(double probability) { return std::bernoulli_distribution(probability)(random_); }
  [[nodiscard]] bool goes_on() const { return ledger_.stop.load() == 0 && account_.failed.load() == 0; }
  static void add(std::atomic<std::uint64_t>& count, std::uint64_t amount = 1) { count.fetch_add(amount); }
  void object(const std::string& what) {
    what.copy(account_.failure, sizeof(account_.failure) - 1);
    account_.failed.store(1);
  }

  // A few streams at a time, until all have ended.
  void use(Client& client) {
    std::vector<Reading> readings;
    for (std::uint32_t i = upto(1, 4); i > 0; --i) open(client, readings);
    for (bool any = true; any && goes_on();) {
      any = false;
      for (Reading& reading : readings) {
        if (reading.is_over) continue;
        any = true;
        advance(reading);
      }
    }
  }

  void open(Client& client, std::vector<Reading>& readings) {
    OpenRequest request = {.recording = {1, upto(0, static_cast<std::uint32_t>(setup_.files.size()) - 1)}};
    const std::uint64_t length = setup_.files[request.recording.recording].size;
    request.begin = std::uniform_int_distribution<std::uint64_t>(0, length - 1)(random_);
    request.end = std::uniform_int_distribution<std::uint64_t>(request.begin + 1, length)(random_);
    request.priority = static_cast<Priority>(upto(0, 3));
    request.cache = happens(0.5)                          ? CachePolicy::kNormal
                    : setup_.reads_direct && happens(0.5) ? CachePolicy::kDirect
                                                          : CachePolicy::kDrop;
    auto stream = client.open(request);
    if (!stream) return judge(stream.error(), nullptr);
    add(account_.streams);
    readings.push_back({.stream = std::move(*stream),
                        .request = request,
                        .next = request.begin,
                        .opened_ns = shm::now_ns(),
                        .held = {}});
    if (happens(0.2)) readings.back().chunks_until_cancel = upto(0, 30);
  }

  void advance(Reading& reading) {
    if (reading.chunks_until_cancel == 0 && !std::exchange(reading.is_cancelled, true)) {
      reading.stream.cancel();
      add(account_.cancels);
    }
    if (happens(0.02)) std::this_thread::sleep_for(milliseconds(upto(1, 20)));
    if (reading.held.size() > upto(0, 6))
      reading.held.erase(reading.held.begin() + upto(0, static_cast<std::uint32_t>(reading.held.size()) - 1));
    auto next = reading.stream.next(Clock::now() + milliseconds(upto(1, 300)));
    if (!next) return end(reading);
    if (!*next) return judge(next->error(), &reading);
    take(reading, std::move(**next));
  }

  void take(Reading& reading, Chunk chunk) {
    if (chunk.offset() != reading.next || chunk.offset() + chunk.bytes().size() > reading.request.end)
      return object(describe(reading) +
                    fmt::format(": a chunk at {} instead of {}", chunk.offset(), reading.next));
    const auto problem =
        setup_.files[reading.request.recording.recording].difference(chunk.offset(), chunk.bytes());
    if (!problem.empty()) return object(describe(reading) + ": " + problem);
    reading.next += chunk.bytes().size();
    add(account_.bytes, chunk.bytes().size());
    if (reading.chunks_until_cancel != UINT32_MAX && reading.chunks_until_cancel > 0)
      --reading.chunks_until_cancel;
    if (happens(0.2)) reading.held.push_back(std::move(chunk));
  }

  void end(Reading& reading) {
    reading.is_over = true;
    if (reading.next != reading.request.end)
      return object(describe(reading) + fmt::format(": ended without an error at {}", reading.next));
    add(account_.completed);
  }

  // Is this error one that has a reason?
  void judge(const Error& error, Reading* reading) {
    add(account_.errors[std::min<std::size_t>(static_cast<std::size_t>(error.code), kCodes - 1)]);
    if (error.code == Code::kDeadlineExceeded) return;  // the stream goes on
    if (error.code == Code::kResourceExhausted) {
      // All streams are taken by some that wait for the disk; or all slots are held by us.
      if (reading != nullptr) reading->held.clear();
      return;
    }
    if (reading != nullptr) reading->is_over = true;
    if (error.code == Code::kCancelled && reading != nullptr && reading->is_cancelled) return;
    if (error.code == Code::kDataLoss && reading != nullptr &&
        ledger_.fails_until_ns.load() >= reading->opened_ns - std::min(kLateNs, reading->opened_ns))
      return;
    object((reading != nullptr ? describe(*reading) : std::string("open")) + ": there is no reason for " +
           std::string(to_string(error.code)) + ": " + error.message);
  }

  static std::string describe(const Reading& reading) {
    return fmt::format("recording {} {}-{}", to_string(reading.request.recording), reading.request.begin,
                       reading.request.end);
  }

  const WorkerSetup& setup_;
  Ledger& ledger_;
  Account& account_;
  std::mt19937_64 random_;
};

}  // namespace

lab::Process start_worker(const WorkerSetup& setup, Ledger& ledger, std::uint32_t place) {
  return lab::fork_child([&] { Worker(setup, ledger, ledger.accounts[place]).run(); });
}

}  // namespace nvr::soak
