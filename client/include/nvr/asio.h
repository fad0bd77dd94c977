// Streams and playlists under Boost.Asio: async_next() with any completion token.
//
//   nvr::AsioClient client(io.get_executor(), std::move(connected));           // nvr::Client
//   auto stream = client.open({.recording = {3, 1842086}});                   // Result<AsioStream>
//   while (auto chunk = co_await nvr::async_next(*stream, boost::asio::use_awaitable)) {
//     if (!*chunk) co_return report(chunk->error());
//     co_await async_write(socket, buffer((*chunk)->bytes().data(), (*chunk)->bytes().size()),
//     use_awaitable);
//   }
//
// Header only; needs Boost 1.74 or later. However many streams a client has, it is one descriptor to the
// reactor, and no thread. io_context::run() returns when nobody waits for a chunk.
//
// Threads: a client, its streams and their completions belong to one thread or one strand, whose executor is
// given to AsioClient. Chunks may be dropped anywhere.
//
// Lifetime: streams may outlive their AsioClient. What is destroyed while an async_next() is under way has it
// complete with Cancelled. Completion handlers are never called from within the function that brings them
// about.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <list>
#include <memory>
#include <optional>
#include <utility>

#include "nvr/client.h"
#include "nvr/playlist.h"

namespace nvr {

namespace internal {

// A completion handler that waits, whatever its type.
class AsioHandler {
 public:
  virtual ~AsioHandler() = default;
  virtual void complete(Stream::NextResult result) = 0;
};

template <class Handler>
class AsioHandlerOf final : public AsioHandler {
 public:
  AsioHandlerOf(Handler handler, const boost::asio::any_io_executor& fallback)
      : handler_(std::move(handler)), work_(boost::asio::get_associated_executor(handler_, fallback)) {}
  void complete(Stream::NextResult result) override {
    boost::asio::post(work_.get_executor(),
                      [handler = std::move(handler_), taken = std::move(result)]() mutable {
                        std::move(handler)(std::move(taken));
                      });
    work_.reset();
  }

 private:
  Handler handler_;
  boost::asio::executor_work_guard<boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>>
      work_;
};

// Who waits for the client's descriptor.
class AsioWaiter {
 public:
  virtual ~AsioWaiter() = default;
  // Looks again. True: it has what it waited for.
  virtual bool look() = 0;
};

// The client's one registration with the reactor, which is armed while anybody waits.
class AsioReactor : public std::enable_shared_from_this<AsioReactor> {
 public:
  AsioReactor(const boost::asio::any_io_executor& executor, Client client)
      : client_(std::move(client)), descriptor_(executor, client_.native_handle()) {
    static_cast<void>(client_.dispatch());  // the streams will say what is wrong
  }
  ~AsioReactor() { descriptor_.release(); }  // it is the Client's
  AsioReactor(const AsioReactor&) = delete;
  AsioReactor& operator=(const AsioReactor&) = delete;

  [[nodiscard]] Client& client() { return client_; }
  [[nodiscard]] boost::asio::any_io_executor executor() { return descriptor_.get_executor(); }

  void add(AsioWaiter& waiter) {
    waiters_.push_back(&waiter);
    arm();
  }
  void remove(AsioWaiter& waiter) {
    waiters_.remove(&waiter);
    if (waiters_.empty() && is_armed_) descriptor_.cancel();  // or run() would not return
  }

 private:
  void arm() {
    if (std::exchange(is_armed_, true)) return;
    descriptor_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                           [self = shared_from_this()](const boost::system::error_code&) {
                             self->is_armed_ = false;
                             self->look();
                           });
  }
  void look() {
    if (waiters_.empty()) return;
    static_cast<void>(client_.dispatch());
    waiters_.remove_if([](AsioWaiter* waiter) { return waiter->look(); });
    if (!waiters_.empty()) arm();
  }

  Client client_;
  boost::asio::posix::stream_descriptor descriptor_;
  std::list<AsioWaiter*> waiters_;
  bool is_armed_ = false;
};

}  // namespace internal

// A Stream or a Playlist of an AsioClient. Movable.
template <class Source>
class AsioSource {
 public:
  AsioSource(std::shared_ptr<internal::AsioReactor> reactor, Source source)
      : state_(std::make_unique<State>(std::move(reactor), std::move(source))) {}

  // What is not next(): seek(), finish(), position(). cancel() and close() are below.
  [[nodiscard]] Source& get() { return state_->source; }
  // Ends it; an async_next() that is under way completes with Cancelled (cancel), or with nothing (close).
  void cancel() {
    state_->source.cancel();
    state_->stop();
  }
  void close() {
    state_->source.close();
    state_->stop();
  }

  // See nvr::async_next().
  template <class Token>
  auto async_next(Token&& token) {
    return boost::asio::async_initiate<Token, void(Stream::NextResult)>(
        [](auto&& handler, State* state) { state->start(std::forward<decltype(handler)>(handler)); }, token,
        state_.get());
  }

 private:
  struct State final : internal::AsioWaiter {
    State(std::shared_ptr<internal::AsioReactor> given, Source from)
        : reactor(std::move(given)), source(std::move(from)) {}
    ~State() override {
      if (!handler) return;
      reactor->remove(*this);
      handler->complete(fail(Code::kCancelled, "the stream was destroyed"));
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    template <class Handler>
    void start(Handler&& given) {
      using Kept = internal::AsioHandlerOf<std::decay_t<Handler>>;
      auto next = std::make_unique<Kept>(std::forward<Handler>(given), reactor->executor());
      if (handler) return next->complete(fail(Code::kFailedPrecondition, "an async_next() is under way"));
      handler = std::move(next);
      if (!look()) reactor->add(*this);
    }
    bool look() override {
      auto next = source.try_next();
      if (next && !*next && next->error().code == Code::kDeadlineExceeded) return false;
      std::exchange(handler, nullptr)->complete(std::move(next));
      return true;
    }
    void stop() {
      if (handler && look()) reactor->remove(*this);
    }

    std::shared_ptr<internal::AsioReactor> reactor;
    Source source;
    std::unique_ptr<internal::AsioHandler> handler;  // of the async_next() that is under way
  };

  std::unique_ptr<State> state_;
};

using AsioStream = AsioSource<Stream>;
using AsioPlaylist = AsioSource<Playlist>;

// A Client whose streams are read by async_next(). Use no other event loop with it.
class AsioClient {
 public:
  AsioClient(const boost::asio::any_io_executor& executor, Client client)
      : reactor_(std::make_shared<internal::AsioReactor>(executor, std::move(client))) {}

  // As Client::open() and Playlist::open().
  [[nodiscard]] Result<AsioStream> open(const OpenRequest& request) {
    auto stream = reactor_->client().open(request);
    if (!stream) return tl::unexpected(stream.error());
    return AsioStream(reactor_, std::move(*stream));
  }
  [[nodiscard]] Result<AsioPlaylist> open(std::vector<Slice> slices, PlaylistOptions options = {}) {
    auto playlist = Playlist::open(reactor_->client(), std::move(slices), options);
    if (!playlist) return tl::unexpected(playlist.error());
    return AsioPlaylist(reactor_, std::move(*playlist));
  }
  [[nodiscard]] DiskStatus disk_status() const { return reactor_->client().disk_status(); }

 private:
  std::shared_ptr<internal::AsioReactor> reactor_;
};

// The next chunk, as Stream::next() gives it: void(Stream::NextResult). One at a time for each stream;
// FailedPrecondition for one more. Deadlines are made with a timer that calls cancel().
template <class Source, class Token>
auto async_next(AsioSource<Source>& source, Token&& token) {
  return source.async_next(std::forward<Token>(token));
}

}  // namespace nvr
