// The daemon's peers, from accept to their end: who may connect, the handshake, status, and what remains of
// them. Control thread only; nothing here waits.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "daemon/admission.h"
#include "daemon/connection.h"
#include "daemon/disk_thread.h"
#include "daemon/listener.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

// One accepted socket.
struct Peer {
  enum class Phase {
    kHello,    // HELLO is due
    kReady,    // WELCOME is sent, READY is due
    kServing,  // the disk thread has the connection
    kControl,  // no segments: it asks
    kLeaving,  // shut down; the disk thread has not let go yet
  };

  std::uint32_t id = 0;
  Phase phase = Phase::kHello;
  shm::UniqueFd socket;
  shm::UniqueFd pidfd;
  PeerIdentity identity;
  std::uint64_t deadline_ns = 0;  // of the handshake; 0 after it
  bool is_control = false;
  bool is_populated = false;
  std::unique_ptr<Connection> connection;
  std::string reply;  // the answer, and how much of it has been sent
  std::size_t reply_sent = 0;
};

class Peers {
 public:
  struct Setup {
    Admission admission;
    std::uint64_t instance = 0;
    std::string directory;                // for WELCOME
    std::function<std::string()> status;  // make the texts that answer control connections
    std::function<std::string()> streams = {};
    std::function<std::string()> stall_log = {};
    std::function<std::string()> metrics = {};
    // Writes how the disk is doing, which a client must know before its first open.
    std::function<void(shm::DiskState&)> disk_state = [](shm::DiskState&) {};
  };
  // `epoll` is the control thread's set; sockets are watched with the tags of tag_of(). Both outlive this.
  Peers(int epoll, DiskThread& disk, Setup setup) : epoll_(epoll), disk_(&disk), setup_(std::move(setup)) {}

  // The epoll set's tags: the low byte says what, the rest whose.
  enum Tag : std::uint64_t { kListener = 1, kSocket = 2, kPidfd = 3, kFirstFreeTag = 4 };
  [[nodiscard]] static constexpr std::uint64_t tag_of(Tag what, std::uint32_t peer = 0) {
    return (std::uint64_t{peer} << 8) | what;
  }

  [[nodiscard]] Result<void> listen(const std::string& path, bool others_may_connect);
  [[nodiscard]] Result<void> listen(Listener listener);
  // What is to be removed at the end; empty: nothing.
  [[nodiscard]] const std::string& owned_path() const { return listener_->path(); }
  // Dispatches an event with a tag below kFirstFreeTag.
  void on_event(std::uint64_t tag, std::uint32_t events);
  // Ends overdue handshakes, accepts again after a pause. Call in every round; next_deadline_ns() says when
  // at the latest (UINT64_MAX: no need).
  void check_deadlines();
  [[nodiscard]] std::uint64_t next_deadline_ns() const;
  // Gives a little of some new connection its memory. True: there is more to do.
  [[nodiscard]] bool populate_some();

  void on_violation(const Connection& connection, const char* offence);
  void on_detached(Connection& connection);
  // Says GOODBYE to everybody, shuts every socket down, and removes the path. The kernel may not do it for
  // us: a process with a thread in an uninterruptible read is not reaped.
  void end_all(const Error& why);

  template <class Visit>
  void for_each_serving(Visit&& visit) const {
    for (const auto& [id, peer] : peers_) {
      if (peer.phase == Peer::Phase::kServing) visit(*peer.connection);
    }
  }
  struct Totals {
    std::uint64_t accepted = 0;
    std::uint64_t refused = 0;
    std::uint64_t violations = 0;
    std::uint32_t controls = 0;    // now
    std::uint64_t held_bytes = 0;  // now: of ended connections, still mapped by their clients
  };
  [[nodiscard]] Totals totals() const;
  // Connections that have ended, but the disk thread has not let go of them. Of some of their streams it has
  // not even heard that they are over, since it may be stuck.
  struct Leaving {
    std::uint32_t connections = 0;
    std::uint32_t unheard_streams = 0;
    std::uint32_t waiting = 0;  // of these: for the disk
  };
  [[nodiscard]] Leaving leaving() const;  // looks at every peer
  [[nodiscard]] const Admission& admission() const { return setup_.admission; }
  // Before anybody is accepted.
  void bound_descriptors(const DescriptorLimits& limits) { setup_.admission.bound_descriptors(limits); }

 private:
  [[nodiscard]] Result<void> watch(int fd, std::uint64_t tag, std::uint32_t events) const;
  void accept_some();
  void admit(AcceptedPeer accepted);
  void refuse(const AcceptedPeer& accepted, const Error& why);
  void on_socket(Peer& peer, std::uint32_t events);
  [[nodiscard]] Result<void> on_message(Peer& peer, std::span<const std::byte> message);
  [[nodiscard]] Result<void> on_hello(Peer& peer, const shm::Hello& hello);
  [[nodiscard]] Result<void> create_connection(Peer& peer, const shm::Hello& hello);
  void on_ready(Peer& peer);
  // Control connections: peers_control.cpp.
  [[nodiscard]] Result<void> on_question(Peer& peer, shm::MessageType type,
                                         std::span<const std::byte> message);
  [[nodiscard]] std::string disconnect(const Peer& by, std::uint32_t connection);
  void send_reply(Peer& peer);
  void end(Peer& peer, const Error* why);
  void forget(Peer& peer);
  void release_segments(Connection& connection);
  void release_unheld_memory();

  int epoll_;
  DiskThread* disk_;
  Setup setup_;
  std::optional<Listener> listener_;
  std::map<std::uint32_t, Peer> peers_;
  std::uint32_t last_id_ = 0;
  std::uint32_t handshakes_ = 0;
  std::uint64_t accept_again_ns_ = 0;  // 0: accepting; else the listener is not watched until then
  Totals totals_;

  struct HeldMemory {
    std::uint32_t uid;
    std::uint64_t bytes;
    Connection::Segments segments;
  };
  std::vector<HeldMemory> held_;
  std::uint64_t next_held_check_ns_ = 0;
};

}  // namespace nvr::daemon
