// Consumers in many processes: each child of a crew has a system of its own (a client of a daemon they share,
// or a reader for itself), and a thread for each of its streams. They read for the same window of time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "shm/unique_fd.h"
#include "tools/bench/child_process.h"
#include "tools/bench/measure.h"

namespace nvr::bench {

inline constexpr std::size_t kMaxStreamsOfProcess = 16;

struct CrewSetup {
  std::size_t processes = 1;
  std::size_t streams_each = 1;                           // 1..kMaxStreamsOfProcess
  std::function<Result<std::unique_ptr<System>>()> make;  // runs in each child
  std::vector<pid_t> helpers = {};                        // whose CPU time counts too: the daemon
};

struct CrewFlow {
  Flow flow;
  std::vector<double> stream_bytes;  // of each stream in the window

  [[nodiscard]] double jain() const;  // fairness: 1 when all got the same
};

class ClientCrew {
 public:
  // What its children are told to do.
  enum class Order : std::uint32_t { kRead, kOpen, kClose };

  // Forks: before the caller has threads that hold locks. Returns when all children have their systems.
  [[nodiscard]] static Result<ClientCrew> start(const FileSet& files, CrewSetup setup);

  // All streams read the files, one after another, each from another one on. A run-up of half a window goes
  // before, in which all are opened, and what the turns of others have made of a system is made good.
  // `meanwhile` is called in the midst of the window.
  [[nodiscard]] Result<CrewFlow> measure(std::chrono::nanoseconds window,
                                         const std::function<void()>& meanwhile = {});
  // Opens all streams, and takes nothing of them, until close_streams().
  [[nodiscard]] Result<void> open_streams() { return tell_all(Order::kOpen); }
  [[nodiscard]] Result<void> close_streams() { return tell_all(Order::kClose); }
  // CPU time of all its processes and helpers since they started.
  [[nodiscard]] Result<std::uint64_t> cpu_ns() const;

 private:
  struct Member {
    shm::UniqueFd socket;
    ChildProcess process;
  };

  explicit ClientCrew(CrewSetup setup) : setup_(std::move(setup)) {}
  [[nodiscard]] Result<void> fork_member(const FileSet& files);
  [[nodiscard]] Result<void> tell_all(Order order);

  CrewSetup setup_;
  std::vector<Member> members_;
};

}  // namespace nvr::bench
