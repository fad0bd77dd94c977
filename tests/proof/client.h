// The client's threads in a proof: users of streams, as client/src/stream_reader.cpp and stream_waiting.cpp
// have them, who check every byte; and the other threads that drop chunks, cancel, or finish.
#pragma once

#include "tests/proof/scenario.h"

namespace nvr::proof {

// One StreamReader after the other on one channel, and what the user does with them.
class User {
 public:
  User(Wires& wires, std::uint32_t stream);

  // Each does one thing. False: nothing to do but wait (of a stream that an event loop looks at), or done.
  bool advance();
  bool round();
  [[nodiscard]] bool is_done() const { return phase_ == Phase::kDone; }

  [[nodiscard]] const Sleeper& sleeper() const { return sleeper_; }
  // For the verdict at rest.
  [[nodiscard]] bool is_in_first_stream() const { return opened_ == 1; }
  std::uint32_t taken = 0;  // descriptors, ever

 private:
  enum class Phase : std::uint32_t { kUnopened, kPromised, kClaimed, kOpening, kReading, kDropping, kDone };

  bool claim();
  void start();
  void leave(bool terminal_taken);
  bool drain();
  void take();
  void take_chunk(const shm::Descriptor& descriptor);
  void drop_oldest();
  void drop_one();
  [[nodiscard]] bool must_give_back() const;
  bool has_news();
  void wait();
  void sleep();
  bool poll();
  bool is_stopped();
  void give_up();
  [[nodiscard]] Wires::Stream& channel() const { return wires_->streams[stream_]; }
  [[nodiscard]] bool is_stoppable() const { return wires_->scenario.cancels && opened_ == 1; }

  struct Chunk {
    std::uint32_t slot = 0;
    std::uint32_t content = 0;
  };
  Wires* wires_;
  DescriptorConsumer descriptors_;
  Sleeper sleeper_;
  std::uint32_t stream_;
  Phase phase_ = Phase::kUnopened;
  std::uint32_t opened_;
  std::uint32_t generation_;
  std::uint32_t position_ = 0;
  std::uint32_t seen_head_ = 0;
  std::uint32_t count_ = 0;  // of the chunks that the user has
  std::array<Chunk, 4> chunks_ = {};
  bool is_draining_ = false;
  bool polled_in_vain_ = false;
  bool is_dead_ = false;
  bool leaves_ = false;
};

class EventLoop {
 public:
  explicit EventLoop(Wires& wires);
  bool round();
  [[nodiscard]] const User& user(std::uint32_t stream) const { return users_[stream]; }
  [[nodiscard]] const Sleeper& sleeper() const { return sleeper_; }

 private:
  enum class Phase : std::uint32_t { kDispatch, kLook, kWait, kMutantDispatch };
  Wires* wires_;
  std::array<User, 2> users_;
  Sleeper sleeper_;
  Phase phase_ = Phase::kDispatch;
  std::uint32_t at_ = 0;
};

struct Dropper {
  Wires* wires;
  bool round();
};
struct Canceller {
  Wires* wires;
  bool round();
};
struct Finisher {
  Wires* wires;
  bool round();
};
struct Idler {
  bool round() { return false; }
};
struct Returner {
  Wires* wires;
  std::uint32_t stream;
  bool round();
};

}  // namespace nvr::proof
