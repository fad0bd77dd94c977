// Playlists, over the public Stream. One thread at a time, but for stop().
//
// There are at most two streams: `current_`, of the slice in which position_ lies, and `ahead_`, of the one
// that follows it. Both are opened at the latest moment that still leaves no gap, and neither is missed by
// anybody when it cannot be opened yet: every call looks again.
#include "nvr/playlist.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <utility>

namespace nvr {
namespace internal {
namespace {

constexpr auto kMaxOffset = static_cast<std::uint64_t>(INT64_MAX);

bool goes_on(Code code) {
  return code == Code::kDeadlineExceeded || code == Code::kResourceExhausted;
}

}  // namespace

class PlaylistReader {
 public:
  PlaylistReader(Client client, std::vector<Slice> slices, std::vector<std::uint64_t> starts,
                 PlaylistOptions options)
      : client_(std::move(client)),
        slices_(std::move(slices)),
        starts_(std::move(starts)),
        options_(options),
        slice_(slice_at(0)) {
    static_cast<void>(open_current());  // what is wrong next() will find out as well
  }

  // `take` is one of Stream's ways to wait.
  template <class Take>
  [[nodiscard]] Stream::NextResult next(Take&& take) {
    while (!has_ended_) {
      if (const Code stopped = stopped_.load(); stopped != Code::kUnknown) {
        std::optional<Error> error;
        if (stopped != Code::kOk) error = Error{.code = stopped, .message = "the playlist was cancelled"};
        has_ended_ = true;
        drop_streams();
        if (!error) return std::nullopt;
        return tl::unexpected(std::move(*error));
      }
      if (slice_ == slices_.size()) break;
      if (auto opened = open_current(); !opened) return fail_here(std::move(opened.error()));
      open_ahead();
      Stream::NextResult result = take(*current_);
      if (!result) {
        move_on();
      } else if (*result) {
        position_ += (*result)->bytes().size();
        return result;
      } else if (result->error().code != Code::kCancelled || stopped_.load() == Code::kUnknown) {
        return fail_here(std::move(result->error()));
      }
    }
    has_ended_ = true;
    return std::nullopt;
  }

  [[nodiscard]] Result<void> seek(std::uint64_t offset) {
    if (stopped_.load() != Code::kUnknown)
      return fail(Code::kFailedPrecondition, "the playlist was cancelled or closed");
    if (offset > size())
      return fail(Code::kOutOfRange, "offset " + std::to_string(offset) + " of a playlist of " +
                                         std::to_string(size()) + " bytes");
    const bool is_here = offset == position_ && !has_ended_;
    has_ended_ = false;
    if (is_here) return {};
    drop_streams();
    position_ = offset;
    slice_ = slice_at(offset);
    static_cast<void>(open_current());
    return {};
  }

  void stop(Code code) {
    Code running = Code::kUnknown;
    if (!stopped_.compare_exchange_strong(running, code)) return;
    const std::scoped_lock lock(mutex_);
    if (!current_) return;  // next() looks at stopped_ before it waits on another
    code == Code::kOk ? current_->close() : current_->cancel();
  }

  [[nodiscard]] std::uint64_t size() const { return starts_.back(); }
  [[nodiscard]] std::uint64_t position() const { return position_; }
  [[nodiscard]] std::size_t slice() const { return slice_; }

 private:
  // The slice that holds the byte at `offset`; behind the last byte, none.
  [[nodiscard]] std::size_t slice_at(std::uint64_t offset) const {
    return static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), offset) -
                                    starts_.begin()) -
           1;
  }

  [[nodiscard]] Result<Stream> open(std::size_t slice, std::uint64_t from) {
    return client_.open({.recording = slices_[slice].recording,
                         .begin = slices_[slice].begin + (from - starts_[slice]),
                         .end = slices_[slice].end,
                         .priority = options_.priority,
                         .cache = options_.cache});
  }

  [[nodiscard]] Result<void> open_current() {
    if (current_ || slice_ == slices_.size()) return {};
    auto stream = open(slice_, position_);
    if (!stream) return tl::unexpected(stream.error());
    install(std::move(*stream));
    return {};
  }

  // Once the end of this slice is near. What cannot be opened now is tried again, and its error comes when
  // its turn has.
  void open_ahead() {
    const std::uint64_t end = starts_[slice_ + 1];
    if (ahead_ || end == size() || end - position_ > options_.open_ahead_bytes) return;
    if (auto stream = open(slice_at(end), end)) ahead_.emplace(std::move(*stream));
  }

  // The slice has been delivered.
  void move_on() {
    if (stopped_.load() != Code::kUnknown) return;
    assert(position_ == starts_[slice_ + 1]);
    slice_ = slice_at(position_);
    if (!ahead_) {
      const std::scoped_lock lock(mutex_);
      return current_.reset();
    }
    install(std::move(*ahead_));
    ahead_.reset();
  }

  // stop() finds either this stream, or nothing and next() finds it stopped.
  void install(Stream stream) {
    const std::scoped_lock lock(mutex_);
    current_.emplace(std::move(stream));
    if (stopped_.load() != Code::kUnknown) current_->close();
  }

  void drop_streams() {
    ahead_.reset();
    const std::scoped_lock lock(mutex_);
    current_.reset();
  }

  [[nodiscard]] tl::unexpected<Error> fail_here(Error error) {
    try {
      error.message = "slice " + std::to_string(slice_ + 1) + " of " + std::to_string(slices_.size()) + ": " +
                      error.message;
    } catch (const std::bad_alloc&) {  // its own words will do: they are told nowhere else
    }
    if (!goes_on(error.code)) {
      has_ended_ = true;
      drop_streams();
    }
    return tl::unexpected(std::move(error));
  }

  Client client_;
  const std::vector<Slice> slices_;
  const std::vector<std::uint64_t> starts_;  // in all of them together; one more than slices
  const PlaylistOptions options_;
  std::uint64_t position_ = 0;  // of the next chunk
  std::size_t slice_;           // in which it lies
  bool has_ended_ = false;
  std::optional<Stream> ahead_;

  std::mutex mutex_;               // stop() against the owner: guards whether there is a current_, and which
  std::optional<Stream> current_;  // its calls are the owner's, but for cancel() and close()
  std::atomic<Code> stopped_ = Code::kUnknown;  // kUnknown: not; kOk: closed; kCancelled
};

}  // namespace internal

Result<Playlist> Playlist::open(Client& client, std::vector<Slice> slices, PlaylistOptions options) {
  std::vector<std::uint64_t> starts = {0};
  starts.reserve(slices.size() + 1);
  for (const Slice& slice : slices) {
    const bool is_range = slice.begin <= slice.end && slice.end <= internal::kMaxOffset;
    if (!is_range || slice.end - slice.begin > internal::kMaxOffset - starts.back())
      return fail(Code::kInvalidArgument,
                  "slice " + std::to_string(starts.size()) + " of " + std::to_string(slices.size()) + ", " +
                      std::to_string(slice.begin) + "-" + std::to_string(slice.end) + " of recording " +
                      to_string(slice.recording) +
                      (is_range ? ", makes the playlist too long" : ", is no range of a file"));
    starts.push_back(starts.back() + (slice.end - slice.begin));
  }
  return Playlist(std::make_unique<internal::PlaylistReader>(Client(client.session_), std::move(slices),
                                                             std::move(starts), options));
}

Playlist::Playlist(std::unique_ptr<internal::PlaylistReader> reader) : reader_(std::move(reader)) {}
Playlist::Playlist(Playlist&& other) noexcept = default;
Playlist& Playlist::operator=(Playlist&& other) noexcept = default;
Playlist::~Playlist() = default;

Playlist::NextResult Playlist::next() {
  return reader_->next([](Stream& stream) { return stream.next(); });
}
Playlist::NextResult Playlist::next(Deadline deadline) {
  return reader_->next([&](Stream& stream) { return stream.next(deadline); });
}
Playlist::NextResult Playlist::try_next() {
  return reader_->next([](Stream& stream) { return stream.try_next(); });
}

std::uint64_t Playlist::size() const {
  return reader_->size();
}
std::uint64_t Playlist::position() const {
  return reader_->position();
}
std::size_t Playlist::slice() const {
  return reader_->slice();
}
Result<void> Playlist::seek(std::uint64_t offset) {
  return reader_->seek(offset);
}
void Playlist::cancel() {
  reader_->stop(Code::kCancelled);
}
void Playlist::close() {
  reader_->stop(Code::kOk);
}

}  // namespace nvr
