#include "tools/streamer/server.h"

#include <fmt/format.h>

#include <boost/asio/ip/address.hpp>
#include <csignal>
#include <cstdio>
#include <vector>

#include "tools/streamer/block_signals.h"

namespace nvr::streamer {
namespace {

using boost::system::error_code;
using tcp = boost::asio::ip::tcp;

constexpr auto kTick = std::chrono::milliseconds(100);
// Connections beyond the bound that are told so. Those beyond these are closed.
constexpr std::size_t kSurplus = 32;

std::string to_text(const tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  if (endpoint.address().is_v6()) return fmt::format("[{}]:{}", host, endpoint.port());
  return fmt::format("{}:{}", host, endpoint.port());
}

}  // namespace

Server::Server(boost::asio::io_context& loop, Service& service)
    : loop_(loop), service_(service), acceptor_(loop), signals_(loop), timer_(loop) {}

// The event loop keeps what waited for the sockets, and the viewers with it, longer than there are disks.
Server::~Server() {
  const std::vector<std::shared_ptr<Viewer>> viewers(viewers_.begin(), viewers_.end());
  for (const auto& viewer : viewers) viewer->end();
}

Result<void> Server::listen() {
  const Settings& settings = service_.settings;
  error_code error;
  const auto address = boost::asio::ip::make_address(settings.host, error);
  if (error)
    return fail(
        Code::kInvalidArgument,
        fmt::format("--listen: {} is no address; give it in digits, e.g. 127.0.0.1:8080 or [::1]:8080",
                    settings.host));
  const tcp::endpoint endpoint(address, settings.port);
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(tcp::acceptor::max_listen_connections, error);
  if (error) return fail_errno(error.value(), "cannot listen on " + to_text(endpoint));
  return {};
}

void Server::run() {
  signals_.add(SIGTERM);
  signals_.add(SIGINT);
  on_signal();
  accept();
  tick();
  error_code ignored;
  fmt::print(stderr, "nvr-streamer: ready on {}\n", to_text(acceptor_.local_endpoint(ignored)));
  loop_.run();
  block_signals();  // the end has begun: another signal must not make a failure of it
}

// ---- Connections
// -----------------------------------------------------------------------------------------------------

void Server::accept() {
  accepts_ = true;
  acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
    accepts_ = false;
    if (service_.is_draining) return;
    if (!error) admit(std::move(socket));
    // Out of descriptors, most likely: the next tick tries again.
    if (!error || error == boost::asio::error::connection_aborted) accept();
  });
}

void Server::admit(tcp::socket socket) {
  Counters& counters = service_.counters;
  const bool is_surplus = viewers_.size() >= service_.settings.max_connections;
  if (is_surplus) ++counters.refused;
  if (viewers_.size() >= service_.settings.max_connections + kSurplus) return;  // closes it
  ++counters.accepted;
  auto viewer = std::make_shared<Viewer>(std::move(socket), service_, is_surplus,
                                         [this](const std::shared_ptr<Viewer>& ended) {
                                           viewers_.erase(ended);
                                           service_.counters.connections = viewers_.size();
                                           stop_if_drained();
                                         });
  viewers_.insert(viewer);
  counters.connections = viewers_.size();
  viewer->start();
}

// ---- Time
// ------------------------------------------------------------------------------------------------------------

void Server::tick() {
  for (const auto& disk : service_.disks) disk->on_tick();
  const Deadline now = Clock::now();
  const std::vector<std::shared_ptr<Viewer>> viewers(viewers_.begin(), viewers_.end());
  for (const auto& viewer : viewers) viewer->on_tick(now);
  if (!accepts_ && !service_.is_draining) accept();
  if (now >= drain_end_) loop_.stop();
  timer_.expires_after(kTick);
  timer_.async_wait([this](const error_code& error) {
    if (!error) tick();
  });
}

// ---- The end
// ---------------------------------------------------------------------------------------------------------

void Server::on_signal() {
  signals_.async_wait([this](const error_code& error, int) {
    if (error) return;
    if (service_.is_draining) return loop_.stop();
    service_.is_draining = true;
    drain_end_ = Clock::now() + service_.settings.drain_timeout;
    error_code ignored;
    acceptor_.close(ignored);
    const std::vector<std::shared_ptr<Viewer>> viewers(viewers_.begin(), viewers_.end());
    for (const auto& viewer : viewers) viewer->drain();
    stop_if_drained();
    on_signal();
  });
}

void Server::stop_if_drained() {
  if (service_.is_draining && viewers_.empty()) loop_.stop();
}

}  // namespace nvr::streamer
