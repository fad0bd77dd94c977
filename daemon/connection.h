// The data side of one connection: its two segments and its streams.
//
// The control thread creates it (so that the disk thread allocates nothing), hands it to the disk thread with
// ATTACH, and destroys it after DETACHED. In between all but the members marked otherwise belong to the disk
// thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>

#include "daemon/descriptor_budget.h"
#include "daemon/peer_identity.h"
#include "daemon/served_stream.h"
#include "nvr/error.h"
#include "shm/segment.h"

namespace nvr::daemon {

class Connection {
 public:
  // Creates and seals the segments. `socket` is borrowed, for the one message that tells an event loop of
  // news; it outlives the connection. Touches no slot: see populate().
  [[nodiscard]] static Result<std::unique_ptr<Connection>> create(std::uint32_t id, PeerIdentity peer,
                                                                  shm::Geometry geometry,
                                                                  std::uint64_t instance, int socket);

  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Constant; any thread.
  [[nodiscard]] std::uint32_t id() const { return id_; }
  [[nodiscard]] const PeerIdentity& peer() const { return peer_; }
  [[nodiscard]] const shm::Geometry& geometry() const { return read_view_.geometry(); }
  [[nodiscard]] const shm::WritableView& read_view() const { return read_view_; }
  [[nodiscard]] const shm::ReadableView& write_view() const { return write_view_; }
  [[nodiscard]] int doorbell() const { return doorbell_.get(); }
  [[nodiscard]] std::uint64_t shared_bytes() const { return r_.bytes() + w_.bytes(); }
  [[nodiscard]] const StreamFacts& facts(std::uint32_t stream) const { return streams_[stream].facts(); }

  // Control thread, before ATTACH or after DETACHED.
  [[nodiscard]] const shm::OwnedSegment& read_segment() const { return r_; }
  [[nodiscard]] const shm::OwnedSegment& write_segment() const { return w_; }
  // Control thread, at any time: gives the next `step_bytes` of R their pages, so that the disk thread does
  // not pay for their first touch. False when all of R has them.
  bool populate(std::uint64_t step_bytes);
  struct Segments {
    shm::OwnedSegment r;
    shm::OwnedSegment w;
  };
  // After DETACHED: what remains when the rest is destroyed.
  [[nodiscard]] Segments release_segments() && { return {std::move(r_), std::move(w_)}; }

  // Before ATTACH: where its open files count. Never called: nowhere.
  void use(DescriptorBudget::Share& descriptors) { descriptors_ = &descriptors; }

  // Disk thread.
  // Counts a file that is going to be opened.
  [[nodiscard]] DescriptorBudget::Verdict take_place_for_file();
  void give_back_place_of_file();
  [[nodiscard]] const DescriptorBudget::Share& descriptors() const { return *descriptors_; }
  void attach(DiskContext& context);
  // The engine holds nothing of it any more.
  void detach() { member_.reset(); }
  [[nodiscard]] ServedStream& stream(std::uint32_t index) { return streams_[index]; }
  [[nodiscard]] std::deque<ServedStream>& streams() { return streams_; }
  shm::CommandConsumer& commands() { return commands_; }
  shm::Sleeper& sleeper() { return sleeper_; }
  // Sends the one message for the client's event loop, if it asked for one. True if it did.
  bool wake_event_loop();
  void stream_opened();
  void stream_ended();
  // The client broke the protocol, or the connection is ending: nothing more is taken from it or published to
  // it.
  void condemn();
  [[nodiscard]] bool is_condemned() const { return condemned_; }
  [[nodiscard]] bool has_operations_in_flight() const;

  // Disk thread writes, any thread reads.
  Counter chunks;
  Counter bytes;
  [[nodiscard]] std::uint32_t open_streams() const { return open_streams_.load(std::memory_order_relaxed); }

  // The disk thread's bookkeeping of this connection's doorbell.
  std::uint32_t rings_without_work = 0;
  bool is_muted = false;
  bool is_leaving = false;  // DETACH was taken, DETACHED not yet sent

 private:
  Connection(std::uint32_t id, PeerIdentity peer, shm::Geometry geometry, int socket, shm::OwnedSegment r,
             shm::OwnedSegment w, shm::UniqueFd doorbell);

  std::uint32_t id_;
  PeerIdentity peer_;
  int socket_;
  shm::OwnedSegment r_;
  shm::OwnedSegment w_;
  shm::UniqueFd doorbell_;
  shm::WritableView read_view_;
  shm::ReadableView write_view_;
  std::uint64_t populated_ = 0;

  shm::CommandConsumer commands_;
  shm::Sleeper sleeper_;   // R's need_doorbell: the disk thread's sleep, as this client sees it
  shm::Waker event_loop_;  // W's want_byte
  std::unique_ptr<Member> member_;
  std::deque<ServedStream> streams_;
  std::atomic<std::uint32_t> open_streams_ = 0;
  DiskContext* context_ = nullptr;
  bool condemned_ = false;
  DescriptorBudget::Share* descriptors_ = nullptr;
  std::uint32_t files_ = 0;  // open, or going to be
};

}  // namespace nvr::daemon
