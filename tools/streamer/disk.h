// One disk as the streamer sees it: a Client of its own, so that nothing of one disk reaches the viewers of
// another.
//
// Event-loop thread, but for the connecting thread, which waits for the daemon to be there the first time and
// hands the finished clients over by a post(). Nothing here blocks the loop.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "nvr/client.h"

namespace nvr::streamer {

// Somebody who waits for news of a disk.
class DiskListener {
 public:
  virtual ~DiskListener() = default;
  // Something may have arrived: called once for each listen(), and when the turn of a Loan has come.
  virtual void on_news() = 0;
};

// What is known of a recording from the last time that it was opened.
struct Known {
  RecordingInfo info;
  bool is_mp4 = false;
};

// A disk is in trouble while its daemon is not there (kConnecting, kAway), while it answers nothing (kStuck),
// or while one operation is stuck and others are answered (kOperationStuck).
struct Trouble {
  enum class Kind { kConnecting, kAway, kStuck, kOperationStuck };
  Kind kind = Kind::kConnecting;
  std::chrono::nanoseconds lasts{};
  std::string text;

  // For how long nobody has had anything of the disk.
  [[nodiscard]] std::chrono::nanoseconds silence() const {
    return kind == Kind::kOperationStuck ? std::chrono::nanoseconds{} : lasts;
  }
};

class Loan;

class Disk {
 public:
  Disk(boost::asio::io_context& loop, std::string name, std::string socket_path, ConnectOptions options);
  ~Disk();
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  // Of a stream: how many chunks may lie in it, held or waiting.
  [[nodiscard]] std::uint32_t slots() const { return options_.slots_per_stream; }

  // Calls on_news() when there is some. Listening twice is listening once.
  void listen(DiskListener& listener) { listeners_.insert(&listener); }
  void forget(DiskListener& listener) { listeners_.erase(&listener); }

  [[nodiscard]] std::optional<Trouble> trouble() const;

  [[nodiscard]] const Known* find_known(RecordingId recording) const;
  void learn(RecordingId recording, const Known& known);
  void unlearn(RecordingId recording) { known_.erase(recording.composite()); }

  // Several times a second: looks whether the daemon is there, and tells in the log when that changes.
  void on_tick();

  // Loans that wait for a stream, and those that have one.
  [[nodiscard]] std::size_t queue_length() const { return queue_.size(); }
  [[nodiscard]] std::size_t lent_streams() const { return lent_; }
  // Do more wait for a stream than there are to lend?
  [[nodiscard]] bool is_short_of_streams() const { return lent_ + queue_.size() > options_.streams; }

 private:
  friend class Loan;
  using Queue = std::multimap<Deadline, DiskListener*>;  // by when their requests came

  struct Clients {
    Client streams;
    Client pulse;
    std::uint32_t slots = 0;  // of a stream, as granted
  };

  void connect();  // the connecting thread
  [[nodiscard]] Result<Clients> connect_both();
  void adopt(Clients clients);
  void wait_for_news();
  void on_readable();
  void log_changes();
  // As Client::open(); Unavailable while no daemon has been there yet.
  [[nodiscard]] Result<Stream> open(const OpenRequest& request);
  void serve_queue();
  void serve_queue_soon();

  boost::asio::io_context& loop_;
  const std::string name_;
  const std::string socket_path_;
  ConnectOptions options_;  // slots_per_stream: as granted
  const Deadline started_ = Clock::now();

  std::optional<Client> client_;
  // Says at once when the daemon goes and when it is back, which the other, whose streams wait for a while,
  // does not.
  std::optional<Client> pulse_;
  boost::asio::posix::stream_descriptor readable_;  // the client's own descriptor: never closed from here
  std::unordered_set<DiskListener*> listeners_;
  std::unordered_map<std::uint64_t, Known> known_;
  Queue queue_;
  std::size_t lent_ = 0;
  bool is_serving_soon_ = false;
  std::optional<Deadline> away_since_;
  std::string away_text_;
  bool was_in_trouble_ = false;

  std::mutex mutex_;
  std::condition_variable stopping_changed_;
  bool stopping_ = false;   // mutex_
  std::thread connecting_;  // last: it uses what is above
};

// A stream of a disk, and before that a place in the queue for one: first come, first served. Its end gives
// up either. Event-loop thread.
class Loan {
 public:
  // `since`: when the request came that it is for. `listener` hears when the stream may be there; it must
  // poll() then, as right away, since nobody is served before it.
  Loan(Disk& disk, const OpenRequest& request, Deadline since, DiskListener& listener);
  ~Loan();
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

  // The stream; nullptr while it waits for one. Or, once, why there will be none: as Client::open().
  [[nodiscard]] Result<Stream*> poll();

  [[nodiscard]] Disk& disk() const { return disk_; }
  [[nodiscard]] bool is_queued() const { return place_.has_value(); }

 private:
  void leave_queue();

  Disk& disk_;
  const OpenRequest request_;
  std::optional<Disk::Queue::iterator> place_;
  std::optional<Stream> stream_;
};

}  // namespace nvr::streamer
