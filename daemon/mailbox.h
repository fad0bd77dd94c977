// Messages between the daemon's two threads: bounded, one producer, one consumer, never waiting.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace nvr::daemon {

template <class Message>
class Mailbox {
 public:
  // `capacity` is rounded up to a power of two.
  explicit Mailbox(std::size_t capacity) : cells_(std::bit_ceil(capacity)) {}

  // Producer. False when full: then nothing was put.
  [[nodiscard]] bool put(Message message) {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);                   // sole writer
    if (tail - head_.load(std::memory_order_acquire) == cells_.size()) return false;  // pairs with take()
    cells_[tail % cells_.size()] = std::move(message);
    tail_.store(tail + 1, std::memory_order_seq_cst);  // pairs with take()
    return true;
  }

  // Producer. At least so many places are free.
  [[nodiscard]] std::size_t room() const {
    return cells_.size() -
           (tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_acquire));  // as in put()
  }

  // Consumer. seq_cst on tail_: it is also the look of a consumer that is about to sleep.
  [[nodiscard]] std::optional<Message> take() {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // sole writer
    if (head == tail_.load(std::memory_order_seq_cst)) return std::nullopt;
    Message message = std::exchange(cells_[head % cells_.size()], Message{});
    head_.store(head + 1, std::memory_order_release);  // pairs with put()
    return message;
  }

 private:
  std::vector<Message> cells_;
  alignas(128) std::atomic<std::size_t> tail_ = 0;
  alignas(128) std::atomic<std::size_t> head_ = 0;
};

}  // namespace nvr::daemon
