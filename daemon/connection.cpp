#include "daemon/connection.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "shm/socket.h"

namespace nvr::daemon {

Result<std::unique_ptr<Connection>> Connection::create(std::uint32_t id, PeerIdentity peer,
                                                       shm::Geometry geometry, std::uint64_t instance,
                                                       int socket) {
  auto r = shm::OwnedSegment::create(shm::SegmentKind::kRead, geometry.read_bytes());
  if (!r) return tl::unexpected(r.error());
  auto w = shm::OwnedSegment::create(shm::SegmentKind::kWrite, geometry.write_bytes());
  if (!w) return tl::unexpected(w.error());
  shm::UniqueFd doorbell(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!doorbell) return fail_errno(errno, "cannot create a doorbell");

  // Advice: where shared memory may use huge pages, the first pass over the slots is ten times as fast.
  madvise(r->mapping().data(), r->mapping().size(), MADV_HUGEPAGE);
  madvise(r->mapping().data(), r->mapping().size(), MADV_DONTFORK);

  std::unique_ptr<Connection> connection(
      new Connection(id, peer, geometry, socket, std::move(*r), std::move(*w), std::move(doorbell)));
  shm::ReadHeader& header = connection->read_view_.read_header();
  header.magic = shm::kMagic;
  header.version_major = shm::kVersionMajor;
  header.version_minor = shm::kVersionMinor;
  header.instance = instance;
  return connection;
}

Connection::Connection(std::uint32_t id, PeerIdentity peer, shm::Geometry geometry, int socket,
                       shm::OwnedSegment r, shm::OwnedSegment w, shm::UniqueFd doorbell)
    : id_(id),
      peer_(peer),
      socket_(socket),
      r_(std::move(r)),
      w_(std::move(w)),
      doorbell_(std::move(doorbell)),
      read_view_(r_.mapping().data(), geometry),
      write_view_(w_.mapping().data(), geometry),
      commands_(write_view_.write_header(), write_view_.commands(), geometry.command_capacity(),
                shm::kFirstIndex),
      sleeper_(read_view_.read_header().need_doorbell),
      event_loop_(write_view_.write_header().want_byte) {
  for (std::uint32_t i = 0; i < geometry.streams; ++i) streams_.emplace_back(*this, i);
}

bool Connection::populate(std::uint64_t step_bytes) {
  const std::uint64_t step = std::min(step_bytes, r_.bytes() - populated_);
  // Where the kernel does not know the advice (before 5.14) the disk thread's first pass does the work.
  if (step > 0) madvise(r_.mapping().data() + populated_, step, MADV_POPULATE_WRITE);
  populated_ += step;
  return populated_ < r_.bytes();
}

void Connection::attach(DiskContext& context) {
  context_ = &context;
  member_ = context.scheduler.join(peer_.uid);
  for (ServedStream& stream : streams_) {
    stream.belongs_to(*member_);
    stream.attach(context);
  }
}

bool Connection::wake_event_loop() {
  return event_loop_.ring_if_asleep([this] {
    // A client that does not read its socket finds it readable already.
    static_cast<void>(shm::send_message(socket_, shm::Published{}));
    return true;
  });
}

void Connection::stream_opened() {
  open_streams_.store(open_streams() + 1, std::memory_order_relaxed);  // sole writer
  context_->statistics.streams_open.add();
}

void Connection::stream_ended() {
  open_streams_.store(open_streams() - 1, std::memory_order_relaxed);
  context_->statistics.streams_open.subtract(1);
}

// The first was counted with the connection.
DescriptorBudget::Verdict Connection::take_place_for_file() {
  const bool is_counted = files_ == 0 || descriptors_ == nullptr;
  const auto verdict = is_counted ? DescriptorBudget::Verdict::kTaken : descriptors_->take(1);
  if (verdict == DescriptorBudget::Verdict::kTaken) ++files_;
  return verdict;
}

void Connection::give_back_place_of_file() {
  assert(files_ > 0);
  if (--files_ > 0 && descriptors_ != nullptr) descriptors_->give_back(1);
}

void Connection::condemn() {
  if (std::exchange(condemned_, true)) return;
  for (ServedStream& stream : streams_) stream.abandon();
}

bool Connection::has_operations_in_flight() const {
  return std::ranges::any_of(streams_, [](const ServedStream& stream) { return stream.in_flight() > 0; });
}

}  // namespace nvr::daemon
