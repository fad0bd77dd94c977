// What ends the disk thread's sleep: the connections' eventfds and the mailbox's, in one edge-triggered epoll
// set. No eventfd is ever read: every write to it is an edge. Disk thread only, but for Doorbells::create.
#pragma once

#include <cstdint>

#include "nvr/error.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

class Doorbells {
 public:
  [[nodiscard]] static Result<Doorbells> create();

  // Readable when something has rung since drain(). For Engine::wait().
  [[nodiscard]] int fd() const { return epoll_.get(); }

  // `id` comes back from drain(). ResourceExhausted where the kernel's limit on epoll watches is reached.
  [[nodiscard]] Result<void> add(int eventfd, std::uint32_t id) const;
  // Before the eventfd is closed: its edges would go on arriving while a duplicate lives.
  void remove(int eventfd) const;

  // Sleeps until there is an edge or `timeout_ms` (-1: none, 0: not at all) has passed; then takes the edges
  // that are there and calls on_ring(id) for each. Bounded, so that clients that ring in a storm cannot hold
  // the thread here; edges left over end the next sleep at once.
  template <class OnRing>
  void drain(int timeout_ms, OnRing&& on_ring) const {
    constexpr int kRounds = 8;
    std::uint32_t ids[kBatch];
    for (int round = 0; round < kRounds; ++round) {
      const std::uint32_t count = take(ids, round == 0 ? timeout_ms : 0);
      for (std::uint32_t i = 0; i < count; ++i) on_ring(ids[i]);
      if (count < kBatch) return;
    }
  }

 private:
  static constexpr std::uint32_t kBatch = 64;
  explicit Doorbells(shm::UniqueFd epoll) : epoll_(std::move(epoll)) {}
  std::uint32_t take(std::uint32_t (&ids)[kBatch], int timeout_ms) const;

  shm::UniqueFd epoll_;
};

}  // namespace nvr::daemon
