// One connection to a daemon, as all its streams and chunks share it.
//
// Who owns what:
//
// Connection: socket, doorbell and the two maps. The socket is shut down when the Session hangs up, with its
// last Client or Stream or for a successor; the maps, and the doorbell that dropped chunks ring, go with the
// last Chunk.
//
// Channel: one of the protocol's streams. Belongs to one StreamReader at a time (kActive); between two of
// them it is drained of what the last one left behind (kDraining), by whoever opens next.
//
// Connection::mutex_ makes all threads one producer of commands, and guards the channels' states;
// Channel::mutex makes all threads that drop chunks one producer of returned slots.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "nvr/client.h"
#include "shm/disk_state.h"
#include "shm/ring.h"
#include "shm/segment.h"
#include "shm/wake.h"
#include "unrung_credit.h"

namespace nvr::internal {

// How long a blocked call sleeps before it looks whether the daemon is still alive. Nothing else depends on
// it: a test that makes it an hour shows that no progress comes from it.
extern std::atomic<std::uint64_t> wait_slice_ns;

// One reader's eye on the daemon's heart, which beats while the daemon has a stream open. Only a reader that
// finds its ring empty, without a terminal, knows that it has: an open that is refused, or a stream that was
// published to its end and waits to be read, gives the daemon no reason to beat.
class HeartbeatWatch {
 public:
  // False: no beat for too long, while we looked often enough to have seen one.
  [[nodiscard]] bool looks_alive(std::uint64_t beat, std::uint64_t now_ns);
  [[nodiscard]] std::uint64_t last_look_ns() const { return last_look_ns_; }

 private:
  std::uint64_t beat_ = 0;          // as last seen
  std::uint64_t since_ns_ = 0;      // when it was first seen
  std::uint64_t last_look_ns_ = 0;  // 0: not yet
};

struct alignas(shm::kWriterDistance) Channel {
  Channel(const shm::ReadableView& r, const shm::WritableView& w, std::uint32_t index,
          std::uint32_t first_index)
      : descriptors(r.publication(index), r.descriptors(index), r.geometry().descriptor_capacity(),
                    first_index),
        sleeper(w.credit(index).waiting),
        generation(first_index),
        returns(w.credit(index), w.returns(index), w.geometry().slots, first_index) {}

  enum class State : std::uint8_t { kFree, kActive, kDraining };

  // The StreamReader's that owns the channel; under Connection::mutex_ while it is being drained.
  shm::DescriptorConsumer descriptors;
  shm::Sleeper sleeper;

  // Under Connection::mutex_.
  State state = State::kFree;
  bool is_promised = false;  // kDraining, and a new stream waits for it
  std::uint32_t generation;  // of the last OPEN

  // Any thread.
  std::mutex mutex;  // for `returns`
  shm::ReturnProducer returns;
  std::atomic<std::uint32_t> held = 0;  // chunks that the user has not dropped, of all generations
  UnrungCredit unrung;
  std::atomic<std::uint32_t> stop_word = 0;  // private futex word: moves when the stream is to end
};

// One descriptor, which no compiler reads a second time: the daemon may have written to its place by then.
// Precondition: look() said kReady.
[[nodiscard]] inline shm::Descriptor take_copy(shm::DescriptorConsumer& descriptors) {
  const shm::Descriptor copy = descriptors.take();
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return copy;
}

// W as it is mapped. In a forked child it is not (MADV_DONTFORK), and its addresses may be somebody else's by
// now: there it is left alone.
class WriteMapping {
 public:
  explicit WriteMapping(shm::Mapping mapping);
  ~WriteMapping();
  WriteMapping(const WriteMapping&) = delete;
  WriteMapping& operator=(const WriteMapping&) = delete;

  [[nodiscard]] std::byte* data() const { return mapping_.data(); }

 private:
  const std::uint32_t fork_generation_;
  union {
    shm::Mapping mapping_;  // in a union, so that it is for the destructor to say whether it is unmapped
  };
};

// Counts the forks above this process, so that what was inherited can be told.
[[nodiscard]] std::uint32_t current_fork_generation();
// When a handshake that begins now is to be over, by options.timeout.
[[nodiscard]] std::uint64_t deadline_of(const ConnectOptions& options);
[[nodiscard]] Error all_streams_open(std::size_t streams);

class Connection {
 public:
  [[nodiscard]] static Result<std::shared_ptr<Connection>> connect(const std::string& path,
                                                                   const ConnectOptions& options);
  // The handshake, on a socket that has just been connected.
  [[nodiscard]] static Result<std::shared_ptr<Connection>> establish(shm::UniqueFd socket,
                                                                     const std::string& path,
                                                                     const ConnectOptions& options,
                                                                     std::uint64_t deadline_ns);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Nobody needs the socket any more: tells the daemon, by shutting it down. Streams of a connection that has
  // died may still take what was published. In a child of the process that connected, only closes the
  // descriptor.
  void hang_up();

  // Is this a child of the process that connected? Then nothing here may be touched: both would write as one.
  [[nodiscard]] bool is_foreign() const;

  [[nodiscard]] const shm::Geometry& geometry() const { return r_.geometry(); }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] Channel& channel(std::uint32_t index) { return channels_[index]; }
  [[nodiscard]] std::span<const std::byte> slot_bytes(std::uint32_t channel, std::uint32_t slot,
                                                      std::uint32_t length) const {
    return {r_.slot(channel, slot), length};
  }

  // Takes a channel for a new stream: kActive and ready for OPEN, or promised (start() says when it is
  // ready). ResourceExhausted when there is none.
  struct Claim {
    std::uint32_t channel = 0;
    bool is_ready = false;
  };
  [[nodiscard]] Result<Claim> claim_channel();
  // For a promised channel: drains it, and makes it kActive if its terminal was there. If it was not: the
  // value of the futex word to wait on.
  struct Promise {
    bool is_kept = false;
    std::uint32_t seen_head = 0;
  };
  [[nodiscard]] Promise try_keep_promise(std::uint32_t channel);
  // Posts OPEN with the channel's next generation, which it returns. Precondition: the caller's, kActive.
  std::uint32_t post_open(std::uint32_t channel, shm::Command command);
  void post_close(std::uint32_t channel);
  void post_finish(std::uint32_t channel);
  // The stream has taken its terminal, gave the channel up before that, or never started it.
  void free_channel(std::uint32_t channel);
  void abandon_channel(std::uint32_t channel);
  void break_promise(std::uint32_t channel);

  // A chunk of this channel's was dropped. Any thread.
  void give_back(std::uint32_t channel, std::uint32_t slot);
  // The channel's reader is about to wait: rings for the credit it has returned since the last ring. Without
  // this, a daemon that sleeps with the window full, and a reader that holds too many chunks to ever return
  // half a window, would wait for each other.
  void ring_for_credit(Channel& channel);

  // A hint: it does not work for anybody now. Who has rung for it may see it asleep for a while yet.
  [[nodiscard]] bool is_daemon_asleep() const { return daemon_.sees_sleeper(); }

  // Unavailable once the daemon has gone, with what it said last. Asks the kernel, and the heartbeat if the
  // caller is a reader that has to wait.
  [[nodiscard]] Result<void> check_alive(HeartbeatWatch* watch);
  // The same, asking at most once in a while (each reader for itself): for callers that come here often.
  [[nodiscard]] Result<void> check_alive_sometimes(HeartbeatWatch* watch);
  [[nodiscard]] Result<void> dispatch();
  [[nodiscard]] int socket() const { return socket_.get(); }
  // Does the daemon want no OPEN now, since its disk is silent (--fail-fast)?
  [[nodiscard]] bool refuses_opens() const;
  // What the disk is busy with for longer than a heartbeat, by the daemon's account.
  [[nodiscard]] std::optional<shm::OldestOperation> stuck_operation() const;

 private:
  Connection(shm::UniqueFd socket, shm::UniqueFd doorbell, shm::Mapping r, shm::Mapping w,
             shm::Geometry geometry, const shm::Welcome& welcome);

  void post(const shm::Command& command);
  void ring();
  bool drain(Channel& channel);
  [[nodiscard]] Result<void> die(std::string_view why);
  bool take_message();
  void take_messages();

  std::string path_;
  std::string directory_;
  const pid_t owner_;
  std::uint32_t fork_generation_;
  shm::Mapping r_map_;
  WriteMapping w_map_;
  shm::ReadableView r_;
  shm::WritableView w_;

  std::mutex mutex_;
  shm::UniqueFd socket_;
  shm::UniqueFd doorbell_;
  shm::CommandProducer commands_;
  shm::Waker daemon_;  // R's need_doorbell
  std::deque<Channel> channels_;

  std::atomic<std::uint64_t> last_check_ns_ = 0;  // by a caller without a HeartbeatWatch
  std::atomic<bool> is_dead_ = false;             // death_ is there
  std::mutex life_mutex_;                         // guards the rest
  shm::Sleeper event_loop_;                       // W's want_byte
  std::optional<Error> death_;
};

}  // namespace nvr::internal
