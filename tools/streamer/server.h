// The listening socket, its viewers, and the clock that ticks for all of them. Event-loop thread; run() is
// the event loop.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <unordered_set>

#include "tools/streamer/service.h"
#include "tools/streamer/viewer.h"

namespace nvr::streamer {

class Server {
 public:
  Server(boost::asio::io_context& loop, Service& service);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // InvalidArgument, Unavailable: nobody can listen there.
  [[nodiscard]] Result<void> listen();
  // Serves until SIGTERM or SIGINT, and then until the responses that have begun are done: at most for the
  // drain timeout, or until the next signal.
  void run();

 private:
  void accept();
  void admit(boost::asio::ip::tcp::socket socket);
  void tick();
  void on_signal();
  void stop_if_drained();

  boost::asio::io_context& loop_;
  Service& service_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer timer_;
  std::unordered_set<std::shared_ptr<Viewer>> viewers_;
  bool accepts_ = false;
  Deadline drain_end_ = Deadline::max();
};

}  // namespace nvr::streamer
