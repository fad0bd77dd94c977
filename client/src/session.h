// What a Client and its Streams share: the connection that they use, and with ConnectOptions::resume the way
// to the next one.
//
// A session is *away* from the moment when somebody notices that the daemon has gone until its own thread,
// which lives just that long, has connected anew. So no caller ever does a handshake: deadlines and cancel()
// are on time while the daemon is away, and however many streams there are, there is one reconnect. Every
// stream goes on with the old connection until it has taken what was published there; its chunks keep the old
// maps. Then it asks for the successor and opens its recording there, from where it was.
//
// Without resume there is one connection, nothing here is ever away, and no lock is taken.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "connection.h"
#include "nvr/client.h"
#include "shm/unique_fd.h"

namespace nvr::internal {

class Session {
 public:
  [[nodiscard]] static Result<std::shared_ptr<Session>> connect(const std::string& path,
                                                                const ConnectOptions& options);
  // The same over a connection that is established already.
  [[nodiscard]] static Result<std::shared_ptr<Session>> over(std::shared_ptr<Connection> connection,
                                                             const std::string& path,
                                                             const ConnectOptions& options);
  // The Client and all Streams have gone: the daemon is told, though a forked child may keep the socket open.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Is this a child of the process that connected? Then nothing here may be touched.
  [[nodiscard]] bool is_foreign() const;
  [[nodiscard]] bool resumes() const { return resume_ns_ != 0; }

  // Where a new stream is to read: a channel of its own, or while away one that lends only its stop_word.
  struct Place {
    std::shared_ptr<Connection> connection;
    Connection::Claim claim;
    std::uint64_t away_since_ns = 0;  // 0: not away
  };
  [[nodiscard]] Result<Place> claim_place();
  // Its stream has ended.
  void leave_place();

  // For a stream whose connection was lost: a place in the one after it. Nothing while away.
  [[nodiscard]] Result<std::optional<Place>> successor_of(const Connection& lost);
  // The connection said Unavailable: a successor is looked for, unless one is or was. Since when it is
  // missed. Any thread.
  std::uint64_t lose(const Connection& lost);
  // Moves, and wakes who sleeps on it, when there is a successor.
  [[nodiscard]] const shm::Word& news() const { return news_; }
  // How long a stream waits for that.
  [[nodiscard]] std::uint64_t resume_ns() const { return resume_ns_; }
  // "the daemon has been away for 3.2 s (cannot connect to ...)"
  [[nodiscard]] std::string describe_absence(std::uint64_t since_ns) const;

  [[nodiscard]] int native_handle() const;
  [[nodiscard]] Result<void> dispatch();
  // Nothing while away: the account of a daemon that has gone is worth nothing.
  [[nodiscard]] std::optional<shm::OldestOperation> stuck_operation() const;

 private:
  Session(std::string path, const ConnectOptions& options, std::shared_ptr<Connection> connection);

  [[nodiscard]] std::shared_ptr<Connection> connection() const;
  [[nodiscard]] Result<Place> find_place();
  [[nodiscard]] Result<void> make_event_descriptors();
  [[nodiscard]] Result<void> watch(int fd);
  [[nodiscard]] std::optional<Error> absence() const;
  void start_thread();
  // The thread's.
  void reconnect();
  [[nodiscard]] Result<std::shared_ptr<Connection>> attempt(const ConnectOptions& options);
  void arrive(std::shared_ptr<Connection> successor);
  void tell();

  const std::string path_;
  const ConnectOptions options_;
  const std::uint32_t fork_generation_;
  const std::uint64_t resume_ns_;                    // 0: does not; UINT64_MAX: for ever
  std::atomic<std::uint32_t> streams_in_place_ = 0;  // at most options_.streams; counted only with resume
  shm::Word news_ = 0;
  shm::UniqueFd events_;   // with resume: an epoll set of the connection's socket and of `arrived_`,
  shm::UniqueFd arrived_;  // an eventfd: the connection is another, or none came in time

  mutable std::mutex mutex_;  // guards the rest; connection_ only with resume, else it never changes
  std::shared_ptr<Connection> connection_;
  bool is_away_ = false;
  std::uint64_t away_since_ns_ = 0;
  std::string last_said_;          // why the daemon is away, or what the last attempt came to
  std::optional<Error> helpless_;  // the thread could not be started
  bool has_thread_ = false;        // to be joined
  pthread_t thread_ = {};
  std::atomic<std::uint32_t> quit_ = 0;  // 1: the thread is to end
  shm::UniqueFd attempt_;                // the socket of the attempt under way, so that it can be ended
};

}  // namespace nvr::internal
