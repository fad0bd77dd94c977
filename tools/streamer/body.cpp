#include "tools/streamer/body.h"

#include <algorithm>

namespace nvr::streamer {
namespace {

// Chunks end where 64 KiB are full, counted from the stream's begin.
bool fits_into_window(const Found& found) {
  return found.decision.slice.end - found.decision.slice.begin <= found.disk->slots() * kChunkBytes;
}

// For how long a viewer may take nothing while others wait for a stream.
constexpr auto kPatience = std::chrono::seconds(1);

}  // namespace

Body::Body(RecordingId recording, Found found, DiskListener& listener)
    : recording_(recording),
      version_(found.known.info),
      end_(found.decision.slice.end),
      disk_(*found.disk),
      listener_(listener),
      loan_(std::move(found.loan)),
      to_come_(found.decision.slice.end - found.decision.slice.begin),
      fits_(fits_into_window(found)),
      most_held_(std::max<std::size_t>(1, fits_ ? found.disk->slots() : found.disk->slots() / 2)) {
  held_.reserve(most_held_);
  hold(std::move(*found.first));
}

// The stream may go further than the response.
void Body::hold(Chunk chunk) {
  const auto bytes = chunk.bytes();
  const auto wanted = bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), to_come_)));
  to_come_ -= wanted.size();
  held_.push_back({.bytes = std::move(chunk), .left = wanted});
  if (to_come_ == 0) (*loan_->poll())->close();
}

// Nothing when there is none at the moment, or none any more: error_.
Stream* Body::stream() {
  if (!loan_) {
    if (is_resting_) return nullptr;
    const OpenRequest rest{.recording = recording_, .begin = end_ - to_come_, .end = end_};
    loan_ = std::make_unique<Loan>(disk_, rest, Clock::now(), listener_);
    is_checked_ = false;
  }
  const bool was_queued = loan_->is_queued();
  const auto lent = loan_->poll();
  if (was_queued && !loan_->is_queued()) moved_ = Clock::now();
  if (lent) return *lent;
  loan_.reset();
  error_ = lent.error();
  return nullptr;
}

bool Body::is_other_version(Stream& stream) {
  if (is_checked_) return false;
  const auto info = stream.info(Clock::now());  // there by now
  is_checked_ = info && is_same(*info, version_);
  return !is_checked_;
}

void Body::listen() {
  if (loan_ && !loan_->is_queued()) disk_.listen(listener_);
}

Body::State Body::fill() {
  while (to_come_ > 0 && !error_ && held_.size() < most_held_) {
    Stream* const stream = this->stream();
    if (stream == nullptr) break;
    auto next = stream->try_next();
    if (!next) {
      error_ = fail(Code::kInternal, "the stream ended before the recording did").value();
    } else if (*next && is_other_version(*stream)) {
      error_ = fail(Code::kFailedPrecondition, "it is another file than it was").value();
    } else if (*next) {
      hold(std::move(**next));
    } else if (next->error().code == Code::kDeadlineExceeded) {
      break;
    } else {
      error_ = std::move(next->error());
    }
  }
  if (must_wait()) return error_ ? State::kFailed : State::kWaiting;
  if (!held_.empty()) return State::kReady;
  if (error_) return State::kFailed;
  return to_come_ == 0 ? State::kDone : State::kWaiting;
}

void Body::append_to(std::vector<boost::asio::const_buffer>& buffers) const {
  for (const Piece& piece : held_) buffers.emplace_back(piece.left.data(), piece.left.size());
}

void Body::consume(std::size_t length) {
  if (length == 0) return;
  is_resting_ = false;
  moved_ = Clock::now();
  auto piece = held_.begin();
  while (piece != held_.end() && length >= piece->left.size()) {
    length -= piece->left.size();
    ++piece;
  }
  if (piece != held_.end()) piece->left = piece->left.subspan(length);
  held_.erase(held_.begin(), piece);
}

bool Body::must_give_up_stream() const {
  if (!loan_ || loan_->is_queued() || held_.empty() || must_wait() || !disk_.is_short_of_streams())
    return false;
  return to_come_ == 0 || Clock::now() - moved_ >= kPatience;
}

void Body::give_up_stream() {
  for (Piece& piece : held_) {
    std::vector<std::byte> copy(piece.left.begin(), piece.left.end());
    piece.left = copy;
    piece.bytes = std::move(copy);  // where they lie stays the same
  }
  loan_.reset();
  is_resting_ = true;
}

}  // namespace nvr::streamer
