// A process that takes what comes through TCP connections over the loopback, a thread for each, and throws it
// away: what a streamer's viewers are to the streamer. It can look at the bytes first.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "nvr/error.h"
#include "shm/unique_fd.h"
#include "tools/bench/child_process.h"

namespace nvr::bench {

class Sink {
 public:
  // Forks: before the caller has threads that hold locks.
  [[nodiscard]] static Result<Sink> start(std::size_t connections);

  // Where to send to; blocking.
  [[nodiscard]] int socket(std::size_t connection) const { return sockets_[connection].get(); }
  [[nodiscard]] pid_t pid() const { return process_.pid(); }
  // Whether what is sent from now on is read, and summed as sum_of_lines() does; whole chunks on each
  // connection. Otherwise the kernel throws it away.
  void set_reading(bool reading) { state_->reads = reading; }
  [[nodiscard]] bool is_reading() const { return state_->reads; }
  // Until so many bytes more have come than have been waited for before. Unavailable: it has ended.
  [[nodiscard]] Result<void> wait_for(std::uint64_t bytes);
  // Of what has been read since the last time.
  [[nodiscard]] std::uint64_t take_sum() { return state_->sum.exchange(0); }

 private:
  struct State {
    std::atomic<bool> reads = false;
    alignas(128) std::atomic<std::uint64_t> bytes = 0;
    std::atomic<std::uint64_t> sum = 0;
  };
  struct Unmap {
    void operator()(State* state) const;
  };
  static void drain(int socket, State& state);
  static void serve(const std::vector<shm::UniqueFd>& sockets, State& state);

  std::unique_ptr<State, Unmap> state_;  // shared with the process
  std::vector<shm::UniqueFd> sockets_;
  std::uint64_t awaited_bytes_ = 0;
  ChildProcess process_;
};

}  // namespace nvr::bench
