#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "describe.h"
#include "shm/clock.h"
#include "shm/socket.h"
#include "shm/step.h"

namespace nvr::internal {

std::atomic<std::uint64_t> wait_slice_ns = 100 * shm::kMillisecond;

namespace {

constexpr int kMaxMessagesAtATime = 64;
constexpr std::int64_t kLongestTimeoutMs = std::int64_t{1000} * 3600 * 24 * 365;
constexpr std::uint64_t kHeartbeatLostNs = shm::kSecond;
constexpr std::uint64_t kLookGapNs =
    500 * shm::kMillisecond;  // between two looks: then it was us who stood still

std::atomic<std::uint32_t> fork_generation = 0;

Result<void> watch_forks() {
  static std::mutex mutex;
  static bool is_watching = false;
  const std::scoped_lock lock(mutex);
  if (is_watching) return {};
  const int error =
      pthread_atfork(nullptr, nullptr, [] { fork_generation.fetch_add(1, std::memory_order_relaxed); });
  if (error != 0) return fail_errno(error, "cannot watch for forks");
  is_watching = true;
  return {};
}

// Dropped chunks write to it: that must neither wait nor raise SIGPIPE.
Result<void> check_doorbell(int fd) {
  struct stat st = {};
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fstat(fd, &st) != 0) return fail_errno(errno, "cannot look at the daemon's doorbell");
  if ((flags & O_NONBLOCK) == 0 || S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))
    return fail(Code::kFailedPrecondition, "the daemon's doorbell is not an eventfd that does not block");
  return {};
}

}  // namespace

std::uint32_t current_fork_generation() {
  return fork_generation.load(std::memory_order_relaxed);
}

std::uint64_t deadline_of(const ConnectOptions& options) {
  const auto timeout_ms =
      static_cast<std::uint64_t>(std::clamp<std::int64_t>(options.timeout.count(), 0, kLongestTimeoutMs));
  return shm::now_ns() + timeout_ms * shm::kMillisecond;
}

Error all_streams_open(std::size_t streams) {
  return {.code = Code::kResourceExhausted,
          .message = "all " + std::to_string(streams) +
                     " streams of the connection are open: close one, or ask for more "
                     "(ConnectOptions::streams) when connecting"};
}

// ---- Life
// ------------------------------------------------------------------------------------------------------------

WriteMapping::WriteMapping(shm::Mapping mapping)
    : fork_generation_(current_fork_generation()), mapping_(std::move(mapping)) {}

WriteMapping::~WriteMapping() {
  if (current_fork_generation() == fork_generation_) mapping_.~Mapping();
}

Result<std::shared_ptr<Connection>> Connection::connect(const std::string& path,
                                                        const ConnectOptions& options) {
  if (auto watching = watch_forks(); !watching) return tl::unexpected(watching.error());
  const shm::Geometry geometry{.streams = options.streams, .slots = options.slots_per_stream};
  if (!geometry.is_valid())
    return fail(Code::kInvalidArgument, "a connection has 1 to " + std::to_string(shm::kMaxStreams) +
                                            " streams, each with a power of two of slots from " +
                                            std::to_string(shm::kMinSlots) + " to " +
                                            std::to_string(shm::kMaxSlots));
  const std::uint64_t deadline_ns = deadline_of(options);
  auto socket = shm::connect_socket(path, deadline_ns);
  if (!socket) return tl::unexpected(socket.error());
  NVR_STEP("client.socket_connected");
  return establish(std::move(*socket), path, options, deadline_ns);
}

Result<std::shared_ptr<Connection>> Connection::establish(shm::UniqueFd socket, const std::string& path,
                                                          const ConnectOptions& options,
                                                          std::uint64_t deadline_ns) {
  const shm::Geometry geometry{.streams = options.streams, .slots = options.slots_per_stream};
  auto greeting = shm::greet(socket.get(), geometry.streams, geometry.slots, deadline_ns);
  if (!greeting) {
    greeting.error().message = path + ": " + greeting.error().message;
    greeting.error().code = checked_code(static_cast<std::uint32_t>(greeting.error().code));
    return tl::unexpected(greeting.error());
  }
  shm::Welcome& welcome = greeting->welcome;
  if (welcome.streams != geometry.streams || welcome.slots_per_stream != geometry.slots ||
      welcome.read_bytes != geometry.read_bytes() || welcome.write_bytes != geometry.write_bytes())
    return fail(Code::kFailedPrecondition, path + ": the daemon's memory layout is not the one asked for");
  if (auto doorbell = check_doorbell(greeting->descriptors[2].get()); !doorbell)
    return tl::unexpected(doorbell.error());
  auto r = shm::attach_segment(shm::SegmentKind::kRead, greeting->descriptors[0].get(), welcome.read_bytes);
  if (!r) return tl::unexpected(r.error());
  NVR_STEP("client.r_mapped");
  auto w = shm::attach_segment(shm::SegmentKind::kWrite, greeting->descriptors[1].get(), welcome.write_bytes);
  if (!w) return tl::unexpected(w.error());
  NVR_STEP("client.w_mapped");
  madvise(w->data(), w->size(), MADV_DONTFORK);

  welcome.directory[sizeof(welcome.directory) - 1] = '\0';
  std::shared_ptr<Connection> connection(new Connection(std::move(socket),
                                                        std::move(greeting->descriptors[2]), std::move(*r),
                                                        std::move(*w), geometry, welcome));
  NVR_STEP("client.w_laid_out");
  // Everything in W is in its place now.
  if (auto sent = shm::send_message(connection->socket(), shm::Ready{}); !sent)
    return tl::unexpected(sent.error());
  NVR_STEP("client.ready_sent");
  return connection;
}

Connection::Connection(shm::UniqueFd socket, shm::UniqueFd doorbell, shm::Mapping r, shm::Mapping w,
                       shm::Geometry geometry, const shm::Welcome& welcome)
    : directory_(welcome.directory),
      owner_(getpid()),
      fork_generation_(fork_generation.load(std::memory_order_relaxed)),
      r_map_(std::move(r)),
      w_map_(std::move(w)),
      r_(r_map_.data(), geometry),
      w_(w_map_.data(), geometry),
      socket_(std::move(socket)),
      doorbell_(std::move(doorbell)),
      commands_(w_.write_header(), w_.commands(), geometry.command_capacity(), welcome.first_index),
      daemon_(r_.read_header().need_doorbell),
      event_loop_(w_.write_header().want_byte) {
  for (std::uint32_t i = 0; i < geometry.streams; ++i) channels_.emplace_back(r_, w_, i, welcome.first_index);
}

Connection::~Connection() {
  // In a forked child the mutex may have been copied while it was locked.
  if (!is_foreign()) hang_up();
}

void Connection::hang_up() {
  const std::scoped_lock lock(life_mutex_);
  NVR_STEP("client.hangs_up");
  // Closing alone would tell the daemon nothing while a forked child keeps the descriptor. In a child the
  // connection is the parent's; one that was born past the fork handlers is known by its pid.
  if (socket_ && getpid() == owner_) shutdown(socket_.get(), SHUT_RDWR);
  // Not the doorbell: a thread that drops a chunk may be about to write to it, and must not find somebody
  // else's file under its number.
  socket_.reset();
}

bool Connection::is_foreign() const {
  return fork_generation.load(std::memory_order_relaxed) != fork_generation_;
}

// ---- Channels
// ----------------------------------------------------------------------------------------------------------

Result<Connection::Claim> Connection::claim_channel() {
  const std::scoped_lock lock(mutex_);
  std::optional<std::uint32_t> best;
  std::optional<std::uint32_t> draining;
  for (std::uint32_t i = 0; i < channels_.size(); ++i) {
    Channel& channel = channels_[i];
    if (channel.state == Channel::State::kDraining && !channel.is_promised && drain(channel))
      channel.state = Channel::State::kFree;
    if (channel.state == Channel::State::kFree) {
      const bool is_empty = channel.held.load(std::memory_order_relaxed) == 0;
      if (!best || (is_empty && channels_[*best].held.load(std::memory_order_relaxed) != 0)) best = i;
      if (is_empty) break;  // the lowest free one: its memory has been used before
    } else if (channel.state == Channel::State::kDraining && !channel.is_promised && !draining) {
      draining = i;
    }
  }
  if (best) {
    channels_[*best].state = Channel::State::kActive;
    return Claim{.channel = *best, .is_ready = true};
  }
  if (draining) {
    channels_[*draining].is_promised = true;
    return Claim{.channel = *draining, .is_ready = false};
  }
  return tl::unexpected(all_streams_open(channels_.size()));
}

// Takes what the channel's last stream left behind, giving the slots back unseen. True: its terminal was
// there, or the daemon's index is corrupt, which the next stream will find out. Far more than a daemon
// publishes before it has seen a CLOSE is not taken at a time: one that publishes for ever does not keep us
// here.
bool Connection::drain(Channel& channel) {
  for (std::uint32_t left = 4 * geometry().descriptor_capacity(); left > 0; --left) {
    const auto look = channel.descriptors.look();
    if (look == shm::DescriptorConsumer::Look::kCorrupt) return true;
    if (look == shm::DescriptorConsumer::Look::kEmpty) return false;
    NVR_STEP("client.drains");
    const shm::Descriptor descriptor = take_copy(channel.descriptors);
    if (shm::is_terminal(descriptor.kind)) return true;
    if (descriptor.kind != shm::DescriptorKind::kChunk) continue;
    const std::scoped_lock lock(channel.mutex);
    channel.returns.put(descriptor.slot);
  }
  return false;
}

Connection::Promise Connection::try_keep_promise(std::uint32_t index) {
  const std::scoped_lock lock(mutex_);
  Channel& channel = channels_[index];
  if (channel.state == Channel::State::kDraining && !drain(channel))
    return {.is_kept = false, .seen_head = channel.descriptors.seen_head()};
  channel.state = Channel::State::kActive;
  channel.is_promised = false;
  return {.is_kept = true};
}

std::uint32_t Connection::post_open(std::uint32_t index, shm::Command command) {
  const std::scoped_lock lock(mutex_);
  Channel& channel = channels_[index];
  command.opcode = shm::Opcode::kOpen;
  command.stream = index;
  command.generation = ++channel.generation;
  post(command);
  return command.generation;
}

void Connection::post_close(std::uint32_t index) {
  const std::scoped_lock lock(mutex_);
  post({.opcode = shm::Opcode::kClose, .stream = index, .generation = channels_[index].generation});
}

void Connection::post_finish(std::uint32_t index) {
  const std::scoped_lock lock(mutex_);
  post({.opcode = shm::Opcode::kFinish, .stream = index, .generation = channels_[index].generation});
}

void Connection::post(const shm::Command& command) {
  commands_.put(command);
  ring();
}

void Connection::free_channel(std::uint32_t index) {
  const std::scoped_lock lock(mutex_);
  channels_[index].state = Channel::State::kFree;
}

void Connection::abandon_channel(std::uint32_t index) {
  const std::scoped_lock lock(mutex_);
  Channel& channel = channels_[index];
  channel.state = drain(channel) ? Channel::State::kFree : Channel::State::kDraining;
}

void Connection::break_promise(std::uint32_t index) {
  const std::scoped_lock lock(mutex_);
  channels_[index].is_promised = false;
}

// ---- Credit and doorbell
// -----------------------------------------------------------------------------------------------

// W2 and W3 of shm/wake.h; call after publishing to W.
void Connection::ring() {
  NVR_STEP("client.shown");
  daemon_.ring_if_asleep([this] {
    NVR_STEP("client.about_to_ring");
    const std::uint64_t one = 1;
    // Fails only when the counter is full: it has rung.
    static_cast<void>(!write(doorbell_.get(), &one, sizeof(one)));
    return true;
  });
}

void Connection::give_back(std::uint32_t index, std::uint32_t slot) {
  Channel& channel = channels_[index];
  {
    const std::scoped_lock lock(channel.mutex);
    channel.returns.put(slot);
  }
  NVR_STEP("client.slot_returned");
  channel.held.fetch_sub(1, std::memory_order_relaxed);
  if (channel.unrung.add(geometry().slots / 2)) ring_for_credit(channel);
}

void Connection::ring_for_credit(Channel& channel) {
  if (channel.unrung.take()) ring();
}

// ---- The daemon's life
// -------------------------------------------------------------------------------------------------

bool HeartbeatWatch::looks_alive(std::uint64_t beat, std::uint64_t now_ns) {
  if (beat != beat_ || now_ns - last_look_ns_ > kLookGapNs) {
    beat_ = beat;
    since_ns_ = now_ns;
  }
  last_look_ns_ = now_ns;
  return now_ns - since_ns_ <= kHeartbeatLostNs;
}

Result<void> Connection::check_alive(HeartbeatWatch* watch) {
  if (is_foreign())
    return fail(Code::kFailedPrecondition, "a connection cannot be used in a child of its process");
  const std::scoped_lock lock(life_mutex_);
  if (death_) return tl::unexpected(*death_);
  pollfd entry = {.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
  if (poll(&entry, 1, 0) > 0 && entry.revents != 0) return die("the daemon has gone");

  // A daemon with a thread in an uninterruptible read cannot be reaped by the kernel, and its sockets do not
  // hang up.
  if (watch != nullptr && !watch->looks_alive(r_.read_header().heartbeat.load(), shm::now_ns()))
    return die("the daemon gives no sign of life: it was killed or stopped, perhaps with the disk stuck");
  return {};
}

Result<void> Connection::check_alive_sometimes(HeartbeatWatch* watch) {
  const std::uint64_t now = shm::now_ns();
  const std::uint64_t slice = wait_slice_ns.load(std::memory_order_relaxed);
  const std::uint64_t last =
      watch != nullptr ? watch->last_look_ns() : last_check_ns_.load(std::memory_order_relaxed);
  if (now - last < slice && !is_dead_.load(std::memory_order_relaxed)) return {};
  if (watch == nullptr) last_check_ns_.store(now, std::memory_order_relaxed);
  return check_alive(watch);
}

// Precondition: life_mutex_. Reads what the daemon said last, if it did.
Result<void> Connection::die(std::string_view why) {
  death_ = Error{.code = Code::kUnavailable, .message = std::string(why)};
  take_messages();
  is_dead_.store(true, std::memory_order_relaxed);
  return tl::unexpected(*death_);
}

// Precondition: life_mutex_. Takes one message off the socket; false when there is none. A GOODBYE is the
// death.
bool Connection::take_message() {
  std::array<std::byte, 512> buffer;
  const auto received = shm::receive_message(socket_.get(), buffer);
  if (!received || received->size == 0) return false;
  const auto message = std::span(buffer).first(received->size);
  const auto header = shm::check_header(message);
  if (!header || header->type != shm::MessageType::kGoodbye) return true;
  if (const auto goodbye = shm::decode_message<shm::Goodbye>(message))
    death_ = Error{.code = Code::kUnavailable,
                   .message = "the daemon ended the connection: " + shm::to_error(*goodbye).message};
  return true;
}

// Precondition: life_mutex_. What is there, within reason: there is one per announcement at most, and a
// GOODBYE.
void Connection::take_messages() {
  for (int i = 0; i < kMaxMessagesAtATime && take_message(); ++i) {
  }
}

Result<void> Connection::dispatch() {
  if (is_foreign())
    return fail(Code::kFailedPrecondition, "a connection cannot be used in a child of its process");
  const std::scoped_lock lock(life_mutex_);
  if (death_) return tl::unexpected(*death_);
  take_messages();
  pollfd entry = {.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
  if (!death_ && poll(&entry, 1, 0) > 0 && entry.revents != 0) return die("the daemon has gone");
  if (death_) {
    is_dead_.store(true, std::memory_order_relaxed);
    return tl::unexpected(*death_);
  }
  event_loop_.announce();  // S1 of shm/wake.h; the caller's look at its streams is S2
  return {};
}

bool Connection::refuses_opens() const {
  return r_.read_header().disk.refuses_opens.load() != 0;
}

std::optional<shm::OldestOperation> Connection::stuck_operation() const {
  if (is_foreign()) return std::nullopt;
  const auto oldest = shm::read_disk_state(r_.read_header().disk);
  if (!oldest || oldest->operation == shm::DiskOperation::kNone) return std::nullopt;
  return oldest;
}

}  // namespace nvr::internal
