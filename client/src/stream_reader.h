// One stream, from open to its end: what is behind nvr::Stream. One thread at a time, but for stop().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "connection.h"
#include "nvr/client.h"
#include "session.h"

namespace nvr::internal {

inline constexpr std::uint64_t kForever = UINT64_MAX;  // as a deadline
inline constexpr std::uint64_t kNow = 0;               // as a deadline: do not wait

class StreamReader {
 public:
  // A stream that has ended already, with an error to deliver or without, unless it begins.
  StreamReader(std::shared_ptr<Session> session, const OpenRequest& request, std::optional<Error> error);
  // Opens there, or where the daemon is back. Once, before any other call. Allocates nothing.
  void begin(Session::Place place, bool stat_only);
  ~StreamReader();
  StreamReader(const StreamReader&) = delete;
  StreamReader& operator=(const StreamReader&) = delete;

  // `deadline_ns`: CLOCK_MONOTONIC, or kForever, or kNow.
  [[nodiscard]] Stream::NextResult next(std::uint64_t deadline_ns);
  [[nodiscard]] Result<RecordingInfo> info(std::uint64_t deadline_ns);
  // Any thread.
  void stop(Code code);
  void finish();

 private:
  enum class Phase : std::uint8_t {
    kAway,      // the daemon has gone, and the session looks for its successor; the channel is of the old one
    kPromised,  // the channel is still being drained of its last stream
    kClaimed,   // the channel is ours, OPEN is not posted
    kOpening,   // OPEN is posted, OPENED has not been taken
    kReading,   // OPENED was taken
    kEnded,
  };
  enum class Until : std::uint8_t { kNews, kOpened };

  [[nodiscard]] Channel& channel() const { return connection_->channel(channel_); }
  void start();
  void go_away();
  [[nodiscard]] std::optional<Error> come_back(std::uint64_t deadline_ns);
  void move_to(const Session::Place& place);
  [[nodiscard]] Stream::NextResult advance(Until until, std::uint64_t deadline_ns);
  [[nodiscard]] Stream::NextResult take();
  [[nodiscard]] Stream::NextResult judge(const shm::Descriptor& descriptor);
  [[nodiscard]] Stream::NextResult take_opened(const shm::Descriptor& descriptor);
  [[nodiscard]] Stream::NextResult take_chunk(const shm::Descriptor& descriptor);
  [[nodiscard]] Stream::NextResult take_terminal(const shm::Descriptor& descriptor);
  [[nodiscard]] Stream::NextResult fail_broken(const char* what);
  [[nodiscard]] Error changed_error(const std::string& how) const;
  [[nodiscard]] std::optional<Error> wait(std::uint64_t deadline_ns);
  [[nodiscard]] std::optional<Error> poll();
  [[nodiscard]] std::optional<Error> sleep(std::uint64_t deadline_ns);
  [[nodiscard]] bool has_news();
  [[nodiscard]] bool spin();
  [[nodiscard]] static std::uint64_t initial_spin_ns();
  [[nodiscard]] bool follows() const { return request_.follow.count() > 0; }
  [[nodiscard]] bool is_delivered() const;
  [[nodiscard]] bool must_give_back() const;
  [[nodiscard]] Error window_error() const;
  [[nodiscard]] Error deadline_error() const;
  [[nodiscard]] Stream::NextResult end(std::optional<Error> error);
  void leave_channel(bool terminal_taken);
  void stop_waiting();

  const std::shared_ptr<Session> session_;
  std::shared_ptr<Connection>
      connection_;             // none for a stream that was born ended; changes under stop_mutex_
  std::uint32_t channel_ = 0;  // likewise
  OpenRequest request_;
  bool stat_only_ = false;
  Phase phase_ = Phase::kEnded;
  std::optional<Error> error_;         // kEnded: to be delivered once
  std::optional<RecordingInfo> info_;  // from the first OPENED
  std::uint32_t generation_ = 0;
  std::uint64_t position_ = 0;  // of the next chunk in the file
  std::uint64_t end_ = 0;       // of the range; known from OPENED on, kToEnd while a recording is followed
  std::uint64_t spin_ns_ = initial_spin_ns();
  std::uint32_t seen_head_ = 0;  // what the futex word was when there was no news
  bool is_at_rest_ = false;      // the last chunk was a short one: no more can come of this generation
  bool polled_in_vain_ = false;  // poll() left the channel's reader counted as waiting
  HeartbeatWatch heartbeat_;
  std::uint64_t away_since_ns_ = 0;  // since when this stream has got nothing for want of a daemon
  std::uint64_t away_at_ = 0;        // position_ then
  std::uint64_t back_since_ns_ = 0;

  // stop() against the owner: is there a generation of ours that wants a CLOSE?
  std::mutex stop_mutex_;
  bool is_open_ = false;
  bool is_finished_ = false;                    // so the user says of what is followed
  std::atomic<Code> stopped_ = Code::kUnknown;  // kUnknown: not; kOk: closed; kCancelled
};

}  // namespace nvr::internal
