#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <new>
#include <random>
#include <utility>

#include "describe.h"
#include "shm/clock.h"
#include "shm/futex.h"
#include "shm/socket.h"

namespace nvr::internal {
namespace {

// Between two attempts, before the jitter of half of it up or down.
constexpr std::uint64_t kFirstPauseNs = 10 * shm::kMillisecond;
constexpr std::uint64_t kLongestPauseNs = shm::kSecond;

std::uint64_t to_ns(std::chrono::milliseconds duration) {
  constexpr auto kLongestMs = static_cast<std::int64_t>(UINT64_MAX / 4 / shm::kMillisecond);
  if (duration.count() <= 0) return 0;
  if (duration.count() >= kLongestMs) return UINT64_MAX;
  return static_cast<std::uint64_t>(duration.count()) * shm::kMillisecond;
}

std::uint64_t jittered(std::uint64_t pause_ns, std::minstd_rand& random) {
  return std::uniform_int_distribution<std::uint64_t>(pause_ns / 2, pause_ns + pause_ns / 2)(random);
}

Error refused_error(const Connection& connection) {
  return {.code = Code::kUnavailable,
          .message = "new opens are refused until the disk of " + connection.directory() +
                     " answers again (--fail-fast)" +
                     describe_stall(connection.stuck_operation(), shm::now_ns())};
}

}  // namespace

// ---- Life
// ------------------------------------------------------------------------------------------------------------

Result<std::shared_ptr<Session>> Session::connect(const std::string& path, const ConnectOptions& options) {
  auto connection = Connection::connect(path, options);
  if (!connection) return tl::unexpected(connection.error());
  return over(std::move(*connection), path, options);
}

Result<std::shared_ptr<Session>> Session::over(std::shared_ptr<Connection> connection,
                                               const std::string& path, const ConnectOptions& options) {
  std::shared_ptr<Session> session(new Session(path, options, std::move(connection)));
  if (!session->resumes()) return session;
  if (auto made = session->make_event_descriptors(); !made) return tl::unexpected(made.error());
  return session;
}

Session::Session(std::string path, const ConnectOptions& options, std::shared_ptr<Connection> connection)
    : path_(std::move(path)),
      options_(options),
      fork_generation_(current_fork_generation()),
      resume_ns_(to_ns(options.resume)),
      connection_(std::move(connection)) {}

Session::~Session() {
  if (is_foreign()) return;  // its descriptors go with the object; the thread is not in this process
  if (has_thread_) {
    {
      const std::scoped_lock lock(mutex_);
      quit_.store(1);
      if (attempt_) shutdown(attempt_.get(), SHUT_RDWR);  // ends its wait for an answer
    }
    shm::futex_wake_private(quit_);
    pthread_join(thread_, nullptr);
  }
  connection_->hang_up();
}

bool Session::is_foreign() const {
  return current_fork_generation() != fork_generation_;
}

std::shared_ptr<Connection> Session::connection() const {
  if (!resumes()) return connection_;
  const std::scoped_lock lock(mutex_);
  return connection_;
}

// ---- Places
// ----------------------------------------------------------------------------------------------------------

Result<Session::Place> Session::claim_place() {
  // Whoever waits for a successor must find a channel there: so they are counted, and not only the channels.
  if (resumes() && streams_in_place_.fetch_add(1) >= options_.streams) {
    streams_in_place_.fetch_sub(1);
    return tl::unexpected(all_streams_open(options_.streams));
  }
  try {
    auto place = find_place();
    if (!place) leave_place();
    return place;
  } catch (const std::bad_alloc&) {
    leave_place();
    throw;
  }
}

Result<Session::Place> Session::find_place() {
  Place place{.connection = connection(), .claim = {}};
  // A daemon that refuses is looked at in any case: it may have gone, and then what it said is no longer so.
  auto alive = place.connection->refuses_opens() ? place.connection->check_alive(nullptr)
                                                 : place.connection->check_alive_sometimes(nullptr);
  if (!alive && resumes() && alive.error().code == Code::kUnavailable) {
    place.away_since_ns = lose(*place.connection);
    auto error = absence();
    alive = error ? Result<void>(tl::unexpected(*error)) : Result<void>();
  }
  const bool is_here = alive && place.away_since_ns == 0;
  if (is_here && place.connection->refuses_opens()) alive = tl::unexpected(refused_error(*place.connection));
  auto claim = alive ? place.connection->claim_channel() : tl::unexpected(alive.error());
  if (!claim) return tl::unexpected(claim.error());
  place.claim = *claim;
  return place;
}

void Session::leave_place() {
  if (resumes()) streams_in_place_.fetch_sub(1);
}

Result<std::optional<Session::Place>> Session::successor_of(const Connection& lost) {
  Place place;
  {
    const std::scoped_lock lock(mutex_);
    if (helpless_) return tl::unexpected(*helpless_);
    if (is_away_ || connection_.get() == &lost) return std::nullopt;
    place.connection = connection_;
  }
  // There is one: no more streams have a place than the connection has channels.
  auto claim = place.connection->claim_channel();
  if (!claim) return tl::unexpected(claim.error());
  place.claim = *claim;
  return place;
}

// ---- Away
// ------------------------------------------------------------------------------------------------------------

std::uint64_t Session::lose(const Connection& lost) {
  const std::scoped_lock lock(mutex_);
  if (connection_.get() != &lost) return shm::now_ns();
  if (is_away_ && has_thread_) return away_since_ns_;
  if (!is_away_) {
    // The thread before has done its work, and takes no lock any more.
    if (std::exchange(has_thread_, false)) pthread_join(thread_, nullptr);
    is_away_ = true;
    away_since_ns_ = shm::now_ns();
    // Before the socket is closed: a forked child may keep it open.
    epoll_ctl(events_.get(), EPOLL_CTL_DEL, connection_->socket(), nullptr);
    connection_->hang_up();
    const auto death = connection_->check_alive(nullptr);
    last_said_ = death ? "" : death.error().message;
  }
  start_thread();
  return away_since_ns_;
}

// Precondition: mutex_.
void Session::start_thread() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the process's signals are not for this thread
  const auto run = [](void* session) -> void* {
    static_cast<Session*>(session)->reconnect();
    return nullptr;
  };
  const int error = pthread_create(&thread_, nullptr, run, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  has_thread_ = error == 0;
  helpless_.reset();
  if (error != 0) {
    helpless_ = fail_errno(error, last_said_ + "; cannot start a thread to wait for the next").value();
    helpless_->code = Code::kUnavailable;
  }
}

// Why no stream may wait for a successor any more.
std::optional<Error> Session::absence() const {
  std::uint64_t since_ns = 0;
  {
    const std::scoped_lock lock(mutex_);
    if (helpless_) return helpless_;
    if (!is_away_ || shm::now_ns() - away_since_ns_ < resume_ns_) return std::nullopt;
    since_ns = away_since_ns_;
  }
  return Error{.code = Code::kUnavailable, .message = describe_absence(since_ns)};
}

std::string Session::describe_absence(std::uint64_t since_ns) const {
  const std::scoped_lock lock(mutex_);
  char duration[32];
  std::snprintf(duration, sizeof(duration), "%.1f s", static_cast<double>(shm::now_ns() - since_ns) / 1e9);
  return std::string("the daemon has been away for ") + duration +
         (last_said_.empty() ? "" : " (" + last_said_ + ")");
}

// ---- The thread
// ------------------------------------------------------------------------------------------------------

void Session::reconnect() {
  pthread_setname_np(pthread_self(), "nvr-resume");
  const std::uint64_t late_ns = resume_ns_ == UINT64_MAX ? UINT64_MAX : away_since_ns_ + resume_ns_;
  bool is_late = false;
  std::minstd_rand random(
      static_cast<std::uint32_t>(shm::now_ns() / 1000 ^ static_cast<std::uint64_t>(getpid()) << 16));
  ConnectOptions options = options_;
  for (std::uint64_t pause_ns = kFirstPauseNs;; pause_ns = std::min(2 * pause_ns, kLongestPauseNs)) {
    std::uint64_t until_ns = shm::now_ns() + jittered(pause_ns, random);
    if (!is_late) until_ns = std::min(until_ns, late_ns);
    while (quit_.load() == 0 && shm::now_ns() < until_ns)
      shm::futex_wait_either(news_, news_.load(), quit_, 0, until_ns);
    if (quit_.load() != 0) return;
    if (!is_late && shm::now_ns() >= late_ns) {
      is_late = true;  // streams give up; the client goes on trying for those opened later
      tell();
    }
    auto successor = attempt(options);
    if (successor) return arrive(std::move(*successor));
    const std::scoped_lock lock(mutex_);
    last_said_ = std::move(successor.error().message);
    // It may have less memory to give than the one before. Less and less, then all again.
    if (successor.error().code == Code::kResourceExhausted)
      options.slots_per_stream = options.slots_per_stream > shm::kMinSlots ? options.slots_per_stream / 2
                                                                           : options_.slots_per_stream;
  }
}

Result<std::shared_ptr<Connection>> Session::attempt(const ConnectOptions& options) {
  try {
    auto socket = shm::connect_socket(path_, shm::now_ns());
    if (!socket) return tl::unexpected(socket.error());
    {
      const std::scoped_lock lock(mutex_);
      if (quit_.load() != 0) return fail(Code::kCancelled, "the client has gone");
      attempt_.reset(fcntl(socket->get(), F_DUPFD_CLOEXEC, 0));  // a number that nobody else closes
    }
    auto connection = Connection::establish(std::move(*socket), path_, options, deadline_of(options));
    {
      const std::scoped_lock lock(mutex_);
      attempt_.reset();
    }
    if (!connection) return connection;
    if (auto watched = watch((*connection)->socket()); !watched) return tl::unexpected(watched.error());
    return connection;
  } catch (const std::bad_alloc&) {
    const std::scoped_lock lock(mutex_);
    attempt_.reset();
    return fail(Code::kUnavailable, "out of memory");
  }
}

void Session::arrive(std::shared_ptr<Connection> successor) {
  {
    const std::scoped_lock lock(mutex_);
    std::swap(connection_, successor);
    is_away_ = false;
  }
  tell();
}

// Wakes the streams that wait, and the event loop.
void Session::tell() {
  news_.fetch_add(1);
  while (shm::futex_wake_one(news_)) {
  }
  const std::uint64_t one = 1;
  static_cast<void>(!write(arrived_.get(), &one, sizeof(one)));
}

// ---- For event loops
// -------------------------------------------------------------------------------------------------

Result<void> Session::make_event_descriptors() {
  events_.reset(epoll_create1(EPOLL_CLOEXEC));
  arrived_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!events_ || !arrived_) return fail_errno(errno, "cannot create the descriptors that resume needs");
  if (auto watched = watch(arrived_.get()); !watched) return watched;
  return watch(connection_->socket());
}

Result<void> Session::watch(int fd) {
  epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data = {}};
  if (epoll_ctl(events_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return fail_errno(errno, "cannot watch the daemon's socket");
  return {};
}

int Session::native_handle() const {
  return resumes() ? events_.get() : connection_->socket();
}

Result<void> Session::dispatch() {
  if (!resumes() || is_foreign()) return connection_->dispatch();  // which refuses a foreign one
  std::uint64_t arrivals = 0;
  static_cast<void>(!read(arrived_.get(), &arrivals, sizeof(arrivals)));
  const auto current = connection();
  auto dispatched = current->dispatch();
  if (dispatched || dispatched.error().code != Code::kUnavailable) return dispatched;
  lose(*current);
  if (auto error = absence()) return tl::unexpected(*error);
  return {};
}

std::optional<shm::OldestOperation> Session::stuck_operation() const {
  if (!resumes()) return connection_->stuck_operation();
  if (is_foreign()) return std::nullopt;
  const std::scoped_lock lock(mutex_);
  return is_away_ ? std::nullopt : connection_->stuck_operation();
}

}  // namespace nvr::internal
