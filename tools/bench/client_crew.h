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
#include "tools/bench/scenario.h"

namespace nvr::bench {

inline constexpr std::size_t kMaxStreamsOfProcess = 16;

struct Crowd {
  std::size_t processes = 1;
  std::size_t streams_each = 1;  // 1..kMaxStreamsOfProcess

  [[nodiscard]] std::size_t streams() const { return processes * streams_each; }
};

struct CrewFlow {
  Flow flow;
  std::vector<double> stream_bytes;  // of each stream in the window
};

class ClientCrew {
 public:
  using Make = std::function<Result<std::unique_ptr<System>>()>;  // runs in each child
  // What its children are told to do.
  enum class Order : std::uint32_t { kRead, kOpen, kClose };

  // Forks: before the caller has threads that hold locks. Returns when all children have their systems.
  // `helpers`: whose CPU time counts too, the daemon.
  [[nodiscard]] static Result<ClientCrew> start(const FileSet& files, Crowd crowd, const Make& make,
                                                std::vector<pid_t> helpers);

  // All streams read the files, one after another, each from another one on. A run-up of half a window goes
  // before, in which all are opened, and what the turns of others have made of a system is made good.
  // `meanwhile` is called in the midst of the window.
  [[nodiscard]] Result<CrewFlow> measure(std::chrono::nanoseconds window,
                                         const std::function<void()>& meanwhile = {});
  // Opens all streams, and takes nothing of them, until close_streams().
  [[nodiscard]] Result<void> open_streams() { return tell_all(Order::kOpen); }
  [[nodiscard]] Result<void> close_streams() { return tell_all(Order::kClose); }

 private:
  struct Member {
    shm::UniqueFd socket;
    ChildProcess process;
  };

  ClientCrew(Crowd crowd, std::vector<pid_t> helpers) : crowd_(crowd), helpers_(std::move(helpers)) {}
  [[nodiscard]] Result<void> fork_member(const FileSet& files, const Make& make);
  [[nodiscard]] Result<void> tell_all(Order order);
  // Of all its processes and helpers since they started.
  [[nodiscard]] Result<double> cpu_ns() const;

  Crowd crowd_;
  std::vector<pid_t> helpers_;
  std::vector<Member> members_;
};

// Turns of a crew that reads for itself (pread), and of crews that are clients of a daemon of each engine.
[[nodiscard]] Result<std::vector<Turn>> crew_turns(const SystemSetup& setup, std::string_view part,
                                                   Crowd crowd, std::chrono::nanoseconds window);

}  // namespace nvr::bench
