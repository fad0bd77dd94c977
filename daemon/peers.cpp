#include "daemon/peers.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "daemon/limits.h"
#include "daemon/log.h"
#include "shm/clock.h"
#include "shm/socket.h"
#include "shm/step.h"

namespace nvr::daemon {
namespace {

namespace level = spdlog::level;

constexpr std::uint64_t kHandshakeNs = shm::kHandshakeMs * shm::kMillisecond;
constexpr std::uint64_t kAcceptPauseNs = 100 * shm::kMillisecond;  // when descriptors have run out
constexpr std::uint64_t kPopulateStep = 2 << 20;                   // about 2 ms of zeroing
constexpr std::uint64_t kHeldCheckNs = 500 * shm::kMillisecond;  // how often memory of the ended is looked at
constexpr int kAcceptBatch = 32;  // a storm of connects leaves the others their turn
constexpr int kMessageBatch = 8;  // and so does a storm of messages

std::string in_hex(std::uint32_t bits) {
  std::array<char, 16> text = {};
  std::snprintf(text.data(), text.size(), "0x%x", bits);
  return text.data();
}

shm::Goodbye goodbye_of(const Error& why) {
  shm::Goodbye goodbye;
  goodbye.code = static_cast<std::uint32_t>(why.code);
  why.message.copy(goodbye.text, sizeof(goodbye.text) - 1);
  return goodbye;
}

}  // namespace

Result<void> Peers::listen(const std::string& path, bool others_may_connect) {
  auto listener = Listener::create(path, others_may_connect);
  if (!listener) return tl::unexpected(listener.error());
  return listen(std::move(*listener));
}

Result<void> Peers::listen(Listener listener) {
  listener_.emplace(std::move(listener));
  return watch(listener_->fd(), tag_of(kListener), EPOLLIN);
}

Result<void> Peers::watch(int fd, std::uint64_t tag, std::uint32_t events) const {
  epoll_event event = {};
  event.events = events;
  event.data.u64 = tag;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0)
    return fail_errno(errno, "cannot watch a descriptor");
  return {};
}

void Peers::on_event(std::uint64_t tag, std::uint32_t events) {
  const auto what = static_cast<Tag>(tag & 0xff);
  if (what == kListener) return accept_some();
  const auto found = peers_.find(static_cast<std::uint32_t>(tag >> 8));
  if (found == peers_.end() || found->second.phase == Peer::Phase::kLeaving)
    return;  // ended earlier in this round
  if (what == kPidfd) return end(found->second, nullptr);
  on_socket(found->second, events);
}

// ---- Accept
// ----------------------------------------------------------------------------------------------------------

void Peers::accept_some() {
  for (int i = 0; i < kAcceptBatch; ++i) {
    auto accepted = listener_->accept();
    if (!accepted) {  // out of descriptors: the listener would stay readable, so look away for a while
      log_some(LogKind::kAccept, level::warn, "{}; trying again (raise the limit on open files)",
               accepted.error().message);
      epoll_ctl(epoll_, EPOLL_CTL_DEL, listener_->fd(), nullptr);
      accept_again_ns_ = shm::now_ns() + kAcceptPauseNs;
      return;
    }
    if (!accepted->has_value()) return;
    admit(std::move(**accepted));
  }
}

void Peers::admit(AcceptedPeer accepted) {
  if (auto allowed = setup_.admission.check_uid(accepted.identity.uid); !allowed)
    return refuse(accepted, allowed.error());
  if (auto calm = setup_.admission.check_rate(accepted.identity.uid, shm::now_ns()); !calm)
    return refuse(accepted, calm.error());
  if (auto admitted = setup_.admission.admit_handshake(accepted.identity.uid); !admitted)
    return refuse(accepted, admitted.error());
  NVR_STEP("daemon.accepted");
  const std::uint32_t id = ++last_id_;
  auto watched = watch(accepted.socket.get(), tag_of(kSocket, id), EPOLLIN | EPOLLRDHUP);
  // Without a pidfd, or room to watch it, the socket's hang-up tells alone.
  if (watched && accepted.pidfd) static_cast<void>(watch(accepted.pidfd.get(), tag_of(kPidfd, id), EPOLLIN));
  if (!watched) {
    setup_.admission.release_handshake(accepted.identity.uid);
    return refuse(accepted, watched.error());
  }
  Peer& peer = peers_[id];
  peer.id = id;
  peer.socket = std::move(accepted.socket);
  peer.pidfd = std::move(accepted.pidfd);
  peer.identity = accepted.identity;
  peer.deadline_ns = shm::now_ns() + kHandshakeNs;
  ++handshakes_;
  on_socket(peer, EPOLLIN);  // an honest client's HELLO is there already, so it leaves its place at once
}

void Peers::refuse(const AcceptedPeer& accepted, const Error& why) {
  ++totals_.refused;
  log_some(LogKind::kRefusal, level::warn, "refused pid {} uid {}: {}", accepted.identity.pid,
           accepted.identity.uid, why.message);
  static_cast<void>(shm::send_message(accepted.socket.get(), goodbye_of(why)));
}

// ---- Messages
// --------------------------------------------------------------------------------------------------------

void Peers::on_socket(Peer& peer, std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) send_reply(peer);
  std::array<std::byte, 256> buffer;
  for (int i = 0; i < kMessageBatch; ++i) {
    auto received = shm::receive_message(peer.socket.get(), buffer);
    if (!received && received.error().sys_errno == EAGAIN) return;
    if (received && received->size == 0) return end(peer, nullptr);
    if (!received && received.error().sys_errno != 0) return end(peer, nullptr);  // reset
    const auto handled = received ? on_message(peer, std::span(buffer).first(received->size))
                                  : Result<void>(tl::unexpected(received.error()));
    if (!handled) {
      const Error why = with_remedy(handled.error());
      ++(why.code == Code::kInvalidArgument ? totals_.violations : totals_.refused);
      log_some(LogKind::kRefusal, level::warn, "pid {} uid {} is disconnected: {}", peer.identity.pid,
               peer.identity.uid, why.message);
      return end(peer, &why);
    }
  }
}

Result<void> Peers::on_message(Peer& peer, std::span<const std::byte> message) {
  const auto header = shm::check_header(message);
  if (!header) return tl::unexpected(header.error());
  if (peer.phase == Peer::Phase::kHello && header->type == shm::MessageType::kHello) {
    const auto hello = shm::decode_message<shm::Hello>(message);
    return hello ? on_hello(peer, *hello) : tl::unexpected(hello.error());
  }
  if (peer.phase == Peer::Phase::kReady && header->type == shm::MessageType::kReady) {
    if (const auto ready = shm::decode_message<shm::Ready>(message); !ready)
      return tl::unexpected(ready.error());
    on_ready(peer);
    return {};
  }
  if (peer.phase == Peer::Phase::kControl) return on_question(peer, header->type, message);
  return fail(Code::kInvalidArgument,
              "message of type " + std::to_string(static_cast<int>(header->type)) + " out of place");
}

Result<void> Peers::on_hello(Peer& peer, const shm::Hello& hello) {
  if (hello.version_major != shm::kVersionMajor)
    return fail(Code::kFailedPrecondition, "the client speaks protocol version " +
                                               std::to_string(hello.version_major) + ", the daemon " +
                                               std::to_string(shm::kVersionMajor));
  if (const std::uint32_t unknown = hello.features & ~shm::kKnownFeatures; unknown != 0)
    return fail(Code::kFailedPrecondition, "the client asks for features " + in_hex(unknown) +
                                               ", which this daemon (protocol version " +
                                               std::to_string(shm::kVersionMajor) + "." +
                                               std::to_string(shm::kVersionMinor) + ") does not have");
  if (hello.reserved != 0)
    return fail(Code::kInvalidArgument, "HELLO with a reserved field that is not zero");
  peer.is_control = hello.streams == 0;
  if (peer.is_control) {
    if (auto admitted = setup_.admission.admit_control(peer.identity.uid); !admitted) {
      peer.is_control = false;  // nothing to release
      return admitted;
    }
    ++totals_.controls;
  } else if (auto created = create_connection(peer, hello); !created) {
    return created;
  }

  shm::Welcome welcome;
  welcome.features = hello.features;
  welcome.streams = hello.streams;
  welcome.slots_per_stream = hello.slots_per_stream;
  welcome.first_index = shm::kFirstIndex;
  welcome.max_streams = shm::kMaxStreams;
  welcome.max_client_bytes = setup_.admission.limits().client_memory_bytes;
  welcome.instance = setup_.instance;
  setup_.directory.copy(welcome.directory, sizeof(welcome.directory) - 1);
  peer.phase = Peer::Phase::kReady;
  peer.deadline_ns = shm::now_ns() + kHandshakeNs;
  setup_.admission.release_handshake(peer.identity.uid);
  if (peer.is_control) return shm::send_message(peer.socket.get(), welcome);

  const Connection& connection = *peer.connection;
  welcome.read_bytes = connection.read_segment().bytes();
  welcome.write_bytes = connection.write_segment().bytes();
  const auto r = connection.read_segment().descriptor_for_client();
  if (!r) return tl::unexpected(r.error());
  const auto w = connection.write_segment().descriptor_for_client();
  if (!w) return tl::unexpected(w.error());
  NVR_STEP("daemon.about_to_welcome");
  return shm::send_message(peer.socket.get(), welcome, std::array{r->get(), w->get(), connection.doorbell()});
}

Result<void> Peers::create_connection(Peer& peer, const shm::Hello& hello) {
  release_unheld_memory();
  const std::uint32_t uid = peer.identity.uid;
  if (auto admitted = setup_.admission.admit_client(uid, hello.streams, hello.slots_per_stream); !admitted)
    return admitted;
  const shm::Geometry geometry{.streams = hello.streams, .slots = hello.slots_per_stream};
  auto connection = Connection::create(peer.id, peer.identity, geometry, setup_.instance, peer.socket.get());
  auto usable = connection ? check_memory_left() : Result<void>(tl::unexpected(connection.error()));
  if (!usable) {
    setup_.admission.release_client(uid);
    setup_.admission.release_memory(uid, geometry.read_bytes() + geometry.write_bytes());
    return usable;
  }
  peer.connection = std::move(*connection);
  setup_.disk_state(peer.connection->read_view().read_header().disk);
  peer.connection->use(setup_.admission.descriptors_of(uid));
  NVR_STEP("daemon.segments_made");
  return {};
}

void Peers::on_ready(Peer& peer) {
  peer.deadline_ns = 0;
  --handshakes_;
  ++totals_.accepted;
  if (peer.is_control) {
    peer.phase = Peer::Phase::kControl;
    return;
  }
  peer.phase = Peer::Phase::kServing;
  log_some(LogKind::kConnect, level::info, "client pid {} uid {} connected: {} streams of {} slots",
           peer.identity.pid, peer.identity.uid, peer.connection->geometry().streams,
           peer.connection->geometry().slots);
  setup_.disk_state(peer.connection->read_view().read_header().disk);  // again: it was told no news meanwhile
  NVR_STEP("daemon.about_to_attach");
  disk_->post(Attach{peer.connection.get()});
}

// ---- The end
// ---------------------------------------------------------------------------------------------------------

// Shuts the peer's socket down at once, with GOODBYE if there is something to say. Its descriptors and memory
// go when the disk thread has let go of them. May destroy `peer`.
void Peers::end(Peer& peer, const Error* why) {
  if (why != nullptr) static_cast<void>(shm::send_message(peer.socket.get(), goodbye_of(*why)));
  epoll_ctl(epoll_, EPOLL_CTL_DEL, peer.socket.get(), nullptr);
  if (peer.pidfd) epoll_ctl(epoll_, EPOLL_CTL_DEL, peer.pidfd.get(), nullptr);
  NVR_STEP("daemon.about_to_shut_down");
  shutdown(peer.socket.get(), SHUT_RDWR);
  if (peer.deadline_ns != 0) --handshakes_;
  if (peer.phase == Peer::Phase::kHello) setup_.admission.release_handshake(peer.identity.uid);
  peer.deadline_ns = 0;
  const bool is_attached = peer.phase == Peer::Phase::kServing;
  peer.phase = Peer::Phase::kLeaving;
  if (!is_attached) return forget(peer);
  // Now, and not when the disk thread has let go of it: that may be long after.
  log_some(LogKind::kDisconnect, level::info, "client pid {} uid {} disconnected after {} chunks, {} bytes",
           peer.identity.pid, peer.identity.uid, peer.connection->chunks.value(),
           peer.connection->bytes.value());
  disk_->post(Detach{peer.connection.get()});
}

void Peers::on_violation(const Connection& connection, const char* offence) {
  ++totals_.violations;
  log_some(LogKind::kOffence, level::warn, "client pid {} uid {} broke the protocol and is disconnected: {}",
           connection.peer().pid, connection.peer().uid, offence);
  const auto found = peers_.find(connection.id());
  if (found == peers_.end() || found->second.phase == Peer::Phase::kLeaving) return;
  const Error why{.code = Code::kInvalidArgument, .message = std::string("protocol violation: ") + offence};
  end(found->second, &why);
}

void Peers::on_detached(Connection& connection) {
  const auto found = peers_.find(connection.id());
  if (found == peers_.end()) return;
  forget(found->second);
}

void Peers::forget(Peer& peer) {
  if (peer.is_control) {
    setup_.admission.release_control(peer.identity.uid);
    --totals_.controls;
  }
  NVR_STEP("daemon.about_to_forget");
  if (peer.connection) release_segments(*peer.connection);
  peers_.erase(peer.id);
}

// The connection no longer counts; its memory does for as long as the client keeps it mapped.
void Peers::release_segments(Connection& connection) {
  const std::uint32_t uid = connection.peer().uid;
  const std::uint64_t bytes = connection.shared_bytes();
  setup_.admission.release_client(uid);
  HeldMemory memory{.uid = uid, .bytes = bytes, .segments = std::move(connection).release_segments()};
  NVR_STEP("daemon.about_to_unmap");
  memory.segments.r.unmap();
  memory.segments.w.unmap();
  held_.push_back(std::move(memory));
  release_unheld_memory();
}

void Peers::release_unheld_memory() {
  next_held_check_ns_ = shm::now_ns() + kHeldCheckNs;
  std::erase_if(held_, [this](const HeldMemory& memory) {
    if (memory.segments.r.held_elsewhere() || memory.segments.w.held_elsewhere()) return false;
    setup_.admission.release_memory(memory.uid, memory.bytes);
    return true;
  });
}

void Peers::end_all(const Error& why) {
  for (auto& [id, peer] : peers_) {
    if (peer.phase == Peer::Phase::kLeaving) continue;
    static_cast<void>(shm::send_message(peer.socket.get(), goodbye_of(why)));
    shutdown(peer.socket.get(), SHUT_RDWR);
  }
  if (listener_) listener_->unlink_if_ours();
}

// ---- Time
// ------------------------------------------------------------------------------------------------------------

std::uint64_t Peers::next_deadline_ns() const {
  std::uint64_t next_ns = accept_again_ns_ != 0 ? accept_again_ns_ : UINT64_MAX;
  if (!held_.empty()) next_ns = std::min(next_ns, next_held_check_ns_);
  if (handshakes_ == 0) return next_ns;
  for (const auto& [id, peer] : peers_) {
    if (peer.deadline_ns != 0) next_ns = std::min(next_ns, peer.deadline_ns);
  }
  return next_ns;
}

void Peers::check_deadlines() {
  const std::uint64_t now = shm::now_ns();
  if (accept_again_ns_ != 0 && now >= accept_again_ns_ && watch(listener_->fd(), tag_of(kListener), EPOLLIN))
    accept_again_ns_ = 0;
  if (!held_.empty() && now >= next_held_check_ns_) release_unheld_memory();
  if (handshakes_ == 0) return;
  for (auto it = peers_.begin(); it != peers_.end();) {
    Peer& peer = (it++)->second;
    if (peer.deadline_ns == 0 || now < peer.deadline_ns) continue;
    ++totals_.refused;
    const Error why{.code = Code::kDeadlineExceeded,
                    .message = peer.phase == Peer::Phase::kHello ? "no HELLO within a second of connecting"
                                                                 : "no READY within a second of WELCOME"};
    log_some(LogKind::kRefusal, level::warn, "pid {} uid {} is disconnected: {}", peer.identity.pid,
             peer.identity.uid, why.message);
    end(peer, &why);
  }
}

bool Peers::populate_some() {
  for (auto& [id, peer] : peers_) {
    if (peer.phase != Peer::Phase::kServing || peer.is_populated) continue;
    peer.is_populated = !peer.connection->populate(kPopulateStep);
    return true;
  }
  return false;
}

Peers::Totals Peers::totals() const {
  Totals totals = totals_;
  for (const HeldMemory& memory : held_) totals.held_bytes += memory.bytes;
  return totals;
}

Peers::Leaving Peers::leaving() const {
  Leaving leaving;
  for (const auto& [id, peer] : peers_) {
    if (peer.phase != Peer::Phase::kLeaving) continue;
    ++leaving.connections;
    for (std::uint32_t i = 0; i < peer.connection->geometry().streams; ++i) {
      const StreamFacts::Snapshot facts = peer.connection->facts(i).snapshot();
      if (facts.state == StreamState::kIdle || facts.state == StreamState::kEnding) continue;
      ++leaving.unheard_streams;
      if (facts.wait == StreamWait::kQueue || facts.wait == StreamWait::kDisk) ++leaving.waiting;
    }
  }
  return leaving;
}

}  // namespace nvr::daemon
