#include "stream_reader.h"

#include <algorithm>
#include <new>
#include <string>

#include "describe.h"
#include "shm/clock.h"
#include "shm/futex.h"
#include "shm/step.h"

namespace nvr::internal {
namespace {

using shm::DescriptorConsumer;
using shm::DescriptorKind;

constexpr std::uint64_t kProvenNs = shm::kSecond;  // a daemon that lives longer does not die of its clients

std::uint64_t quiet_ms_of(const OpenRequest& request) {
  if (request.follow.count() <= 0) return 0;
  return request.follow == std::chrono::milliseconds::max()
             ? UINT64_MAX
             : static_cast<std::uint64_t>(request.follow.count());
}

Error foreign_error() {
  return {.code = Code::kFailedPrecondition, .message = "a stream cannot be used in a child of its process"};
}

// Why `now` is not the file that the stream has begun to read, or not all of it; nothing if it is.
std::optional<std::string> difference(const RecordingInfo& before, const RecordingInfo& now, bool follows) {
  if (now.device != before.device || now.inode != before.inode) return "it is another file now";
  const bool births_known = before.birth_ns != 0 && now.birth_ns != 0;
  if (births_known && now.birth_ns != before.birth_ns)
    return "it is another file now, which was created at another time";
  if (now.size < before.size) return "it has " + std::to_string(now.size) + " bytes now";
  if (births_known) return std::nullopt;
  // Another file may have got the inode number. A recording that is written grows, and is modified later and
  // later; one that is complete stays what it is.
  if (follows && now.mtime_ns < before.mtime_ns) return "it is one that was last modified earlier";
  if (!follows && now.mtime_ns != before.mtime_ns) return "it was modified";
  if (!follows && now.size != before.size) return "it has " + std::to_string(now.size) + " bytes now";
  return std::nullopt;
}

}  // namespace

StreamReader::StreamReader(std::shared_ptr<Session> session, const OpenRequest& request,
                           std::optional<Error> error)
    : session_(std::move(session)), request_(request), error_(std::move(error)) {}

void StreamReader::begin(Session::Place place, bool stat_only) {
  connection_ = std::move(place.connection);
  channel_ = place.claim.channel;
  stat_only_ = stat_only;
  position_ = away_at_ = request_.begin;
  away_since_ns_ = place.away_since_ns;
  phase_ = place.claim.is_ready ? Phase::kClaimed : Phase::kPromised;
  if (away_since_ns_ != 0) phase_ = Phase::kAway;
  if (phase_ == Phase::kClaimed) start();
}

StreamReader::~StreamReader() {
  if (!session_->is_foreign() && phase_ != Phase::kEnded) leave_channel(false);
}

// Posts OPEN: the disk starts working for this stream.
void StreamReader::start() {
  const std::scoped_lock lock(stop_mutex_);
  if (stopped_.load() != Code::kUnknown) return;
  const bool to_end = request_.end == kToEnd && (!info_ || follows());
  const auto flags =
      static_cast<std::uint16_t>((to_end ? shm::kOpenToEnd : 0) | (stat_only_ ? shm::kOpenStatOnly : 0) |
                                 (follows() ? shm::kOpenFollow : 0));
  generation_ = connection_->post_open(channel_, {.priority = request_.priority,
                                                  .cache = request_.cache,
                                                  .flags = flags,
                                                  .recording = request_.recording.composite(),
                                                  .begin = position_,
                                                  .end = to_end  ? 0
                                                         : info_ ? end_
                                                                 : request_.end,
                                                  .quiet_ms = quiet_ms_of(request_)});
  if (is_finished_) connection_->post_finish(channel_);
  is_open_ = true;
  phase_ = Phase::kOpening;
}

void StreamReader::finish() {
  if (session_->is_foreign() || !follows()) return;
  const std::scoped_lock lock(stop_mutex_);
  if (std::exchange(is_finished_, true)) return;
  if (is_open_) connection_->post_finish(channel_);
}

void StreamReader::stop(Code code) {
  if (session_->is_foreign()) return;
  const std::scoped_lock lock(stop_mutex_);
  Code running = Code::kUnknown;
  if (!stopped_.compare_exchange_strong(running, code)) return;
  if (!connection_) return;
  NVR_STEP("client.about_to_close");
  if (std::exchange(is_open_, false)) connection_->post_close(channel_);
  channel().stop_word.fetch_add(1);  // changes what sleep() compares
  shm::futex_wake_private(channel().stop_word);
}

// Gives the channel up, for the next stream to use.
void StreamReader::leave_channel(bool terminal_taken) {
  stop_waiting();  // before the channel can be the next stream's
  const std::scoped_lock lock(stop_mutex_);
  if (std::exchange(is_open_, false) && !terminal_taken) connection_->post_close(channel_);
  if (phase_ == Phase::kPromised)
    connection_->break_promise(channel_);
  else if (phase_ == Phase::kClaimed || phase_ == Phase::kAway || terminal_taken)
    connection_->free_channel(channel_);
  else
    connection_->abandon_channel(channel_);
  phase_ = Phase::kEnded;
  session_->leave_place();
}

Stream::NextResult StreamReader::end(std::optional<Error> error) {
  phase_ = Phase::kEnded;
  if (!error) return std::nullopt;
  return tl::unexpected(std::move(*error));
}

// ---- Taking
// --------------------------------------------------------------------------------------------------------------

Stream::NextResult StreamReader::next(std::uint64_t deadline_ns) {
  if (phase_ == Phase::kEnded) return end(std::exchange(error_, std::nullopt));
  if (session_->is_foreign()) return tl::unexpected(foreign_error());
  stop_waiting();
  return advance(Until::kNews, deadline_ns);
}

Result<RecordingInfo> StreamReader::info(std::uint64_t deadline_ns) {
  if (!info_ && phase_ != Phase::kEnded) {
    if (session_->is_foreign()) return tl::unexpected(foreign_error());
    if (auto result = advance(Until::kOpened, deadline_ns)) {
      // No chunk comes before OPENED.
      if (phase_ != Phase::kEnded) return tl::unexpected(std::move(result->error()));
      error_ = std::move(result->error());  // next() will say it as well
    }
  }
  if (info_) return *info_;
  if (error_) return tl::unexpected(*error_);
  return fail(Code::kFailedPrecondition,
              "the stream ended before recording " + to_string(request_.recording) + " was opened");
}

// Takes descriptors until there is something to say: a chunk, the end, or why there is neither.
// Until::kOpened stops, with nothing, once the file is open.
Stream::NextResult StreamReader::advance(Until until, std::uint64_t deadline_ns) {
  for (;;) {
    if (const Code stopped = stopped_.load(); stopped != Code::kUnknown) {
      std::optional<Error> error;
      if (stopped != Code::kOk) error = Error{.code = stopped, .message = "the stream was cancelled"};
      leave_channel(false);
      return end(std::move(error));
    }
    if (phase_ == Phase::kAway) {
      if (is_delivered()) {  // all but the END
        leave_channel(false);
        return end(std::nullopt);
      }
      auto error = come_back(deadline_ns);
      if (!error) continue;
      if (error->code != Code::kDeadlineExceeded) leave_channel(false);
      return tl::unexpected(std::move(*error));
    }
    if (phase_ == Phase::kClaimed) start();
    if (phase_ >= Phase::kOpening) {
      const auto look = channel().descriptors.look();
      if (look == DescriptorConsumer::Look::kCorrupt) return fail_broken("the descriptor ring moved too far");
      if (look == DescriptorConsumer::Look::kReady) {
        auto result = take();
        if (result || phase_ == Phase::kEnded || until == Until::kOpened) return result;
        continue;
      }
    }
    if (auto error = deadline_ns == kNow ? poll() : wait(deadline_ns)) {
      if (error->code == Code::kUnavailable && session_->resumes()) {
        go_away();
        continue;
      }
      const bool goes_on = error->code == Code::kDeadlineExceeded || error->code == Code::kResourceExhausted;
      if (!goes_on) leave_channel(false);
      return tl::unexpected(std::move(*error));
    }
  }
}

// One descriptor. Nothing while the stream goes on: it was OPENED. With no memory to say what the descriptor
// means, the stream ends, and the next call says so: otherwise it would look complete.
Stream::NextResult StreamReader::take() {
  NVR_STEP("client.about_to_take");
  const shm::Descriptor descriptor = take_copy(channel().descriptors);
  try {
    return judge(descriptor);
  } catch (const std::bad_alloc&) {
    if (phase_ != Phase::kEnded) leave_channel(false);
    error_ = Error{.code = Code::kAborted, .message = "out of memory"};  // so short that it needs none
    throw;
  }
}

Stream::NextResult StreamReader::judge(const shm::Descriptor& descriptor) {
  if (descriptor.generation != generation_) return fail_broken("a descriptor of another generation");
  if (shm::is_terminal(descriptor.kind)) return take_terminal(descriptor);
  if (descriptor.kind == DescriptorKind::kChunk && phase_ == Phase::kReading) return take_chunk(descriptor);
  if (descriptor.kind != DescriptorKind::kOpened || phase_ != Phase::kOpening)
    return fail_broken("a descriptor out of order");
  return take_opened(descriptor);
}

// The first time: what the stream is about. Later: is it still that?
Stream::NextResult StreamReader::take_opened(const shm::Descriptor& descriptor) {
  const RecordingInfo found{.device = descriptor.file_device,
                            .inode = descriptor.file_inode,
                            .size = descriptor.file_size,
                            .mtime_ns = descriptor.file_mtime_ns,
                            .birth_ns = static_cast<std::int64_t>(descriptor.offset)};
  const bool is_known = info_.has_value();
  if (!is_known) {
    end_ = request_.end == kToEnd && !follows() ? found.size : request_.end;
  } else if (const auto how = difference(*info_, found, follows())) {
    leave_channel(false);
    return end(changed_error(*how));
  }
  if (position_ > end_ || (follows() ? position_ : end_) > found.size)
    return fail_broken("a file that does not hold the range");
  if (!is_known) info_ = found;  // info() tells what has been checked
  phase_ = Phase::kReading;
  is_at_rest_ = false;
  return std::nullopt;
}

// Exactly the bytes that come next, in a slot that exists, or the daemon cannot be trusted with this stream.
Stream::NextResult StreamReader::take_chunk(const shm::Descriptor& descriptor) {
  const std::uint64_t most = std::min<std::uint64_t>(end_ - position_, shm::kSlotBytes);
  // A recording that is followed may end anywhere, but nowhere twice.
  const bool fits = follows() ? descriptor.length <= most && !is_at_rest_ : descriptor.length == most;
  if (descriptor.slot >= connection_->geometry().slots || descriptor.offset != position_ ||
      descriptor.length == 0 || !fits)
    return fail_broken("a chunk that is not the next one");
  NVR_STEP("client.chunk_taken");
  position_ += descriptor.length;
  is_at_rest_ = descriptor.length < shm::kSlotBytes;
  channel().held.fetch_add(1, std::memory_order_relaxed);
  return Result<Chunk>(Chunk(connection_, channel_, descriptor.slot,
                             connection_->slot_bytes(channel_, descriptor.slot, descriptor.length),
                             descriptor.offset));
}

Stream::NextResult StreamReader::take_terminal(const shm::Descriptor& descriptor) {
  const bool is_complete = phase_ == Phase::kReading && (is_delivered() || follows());
  const bool is_shorter =
      phase_ == Phase::kOpening && info_ && descriptor.detail == shm::Detail::kRangeBeyondEnd;
  leave_channel(true);
  if (descriptor.kind == DescriptorKind::kError && is_shorter)
    return end(changed_error("it has " + std::to_string(descriptor.file_size) + " bytes now"));
  if (descriptor.kind == DescriptorKind::kError)
    return end(describe(descriptor, request_, connection_->directory()));
  if (descriptor.kind == DescriptorKind::kEnd && !is_complete)
    return end(Error{.code = Code::kInternal, .message = "the daemon ended the stream before its end"});
  if (descriptor.kind == DescriptorKind::kClosed) {
    const Code stopped = stopped_.load();
    if (stopped == Code::kUnknown)  // a stream without its last bytes must not look complete
      return end(Error{.code = Code::kInternal, .message = "the daemon closed the stream unasked"});
    if (stopped == Code::kCancelled)
      return end(Error{.code = Code::kCancelled, .message = "the stream was cancelled"});
  }
  return end(std::nullopt);
}

Stream::NextResult StreamReader::fail_broken(const char* what) {
  leave_channel(false);
  return end(Error{
      .code = Code::kInternal,
      .message = "recording " + to_string(request_.recording) + ": the daemon broke the protocol: " + what});
}

Error StreamReader::changed_error(const std::string& how) const {
  return {.code = Code::kFailedPrecondition,
          .message = "recording " + to_string(request_.recording) +
                     " is not what it was before the daemon was restarted: " + how + ", in place of inode " +
                     std::to_string(info_->inode) + " with " + std::to_string(info_->size) + " bytes"};
}

// ---- Away
// --------------------------------------------------------------------------------------------------------------

// The connection is lost, and everything that was published there has been taken.
void StreamReader::go_away() {
  stop_waiting();
  const std::uint64_t since_ns = session_->lose(*connection_);
  // A daemon that dies of this very stream again and again counts as away all the time.
  if (away_since_ns_ == 0 || position_ != away_at_ || since_ns > back_since_ns_ + kProvenNs) {
    away_since_ns_ = since_ns;
    away_at_ = position_;
  }
  const std::scoped_lock lock(stop_mutex_);
  is_open_ = false;
  phase_ = Phase::kAway;
}

// Moves to the successor, or waits for it until `deadline_ns`. Nothing: look again.
std::optional<Error> StreamReader::come_back(std::uint64_t deadline_ns) {
  const std::uint32_t news_seen = session_->news().load();
  const std::uint32_t stop_seen = channel().stop_word.load();
  if (stopped_.load() != Code::kUnknown) return std::nullopt;  // before stop_seen was read
  const auto successor = session_->successor_of(*connection_);
  if (!successor) return successor.error();
  if (*successor) {
    move_to(**successor);
    return std::nullopt;
  }
  const std::uint64_t now = shm::now_ns();
  const std::uint64_t resume_ns = session_->resume_ns();
  if (now - away_since_ns_ >= resume_ns)
    return Error{.code = Code::kUnavailable, .message = session_->describe_absence(away_since_ns_)};
  if (now >= deadline_ns)
    return Error{.code = Code::kDeadlineExceeded,
                 .message = "recording " + to_string(request_.recording) +
                            ": nothing arrived within the deadline; " +
                            session_->describe_absence(away_since_ns_)};
  const std::uint64_t give_up_ns = resume_ns == kForever ? kForever : away_since_ns_ + resume_ns;
  shm::futex_wait_either(session_->news(), news_seen, channel().stop_word, stop_seen,
                         std::min(deadline_ns, give_up_ns));
  return std::nullopt;
}

void StreamReader::move_to(const Session::Place& place) {
  {
    const std::scoped_lock lock(stop_mutex_);
    connection_->free_channel(channel_);
    connection_ = place.connection;
    channel_ = place.claim.channel;
    phase_ = place.claim.is_ready ? Phase::kClaimed : Phase::kPromised;
  }
  heartbeat_ = {};
  back_since_ns_ = shm::now_ns();
}

// Has all that was asked for been taken?
bool StreamReader::is_delivered() const {
  return info_ && (position_ == end_ || stat_only_);
}

}  // namespace nvr::internal
