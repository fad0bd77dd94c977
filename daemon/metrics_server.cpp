#include "daemon/metrics_server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "daemon/limits.h"

namespace nvr::daemon {
namespace {

constexpr int kAcceptBatch = 64;
constexpr int kStepBatch = 8;  // of one connection, before the others have their turn
constexpr int kPauseMs = 100;  // when descriptors have run out
constexpr std::size_t kMaxRequest = 8192;

bool is_whole(std::string_view request) {
  return request.find("\r\n\r\n") != std::string_view::npos || request.find("\n\n") != std::string_view::npos;
}

std::string response_of(std::string_view status, std::string_view type, const std::string& body,
                        bool is_head) {
  std::string response = "HTTP/1.1 ";
  response.append(status).append("\r\nContent-Type: ").append(type);
  response.append("\r\nContent-Length: ").append(std::to_string(body.size()));
  response.append("\r\nConnection: close\r\n\r\n");
  return is_head ? response : response + body;
}

}  // namespace

Result<std::unique_ptr<MetricsServer>> MetricsServer::start(const std::string& address, bool confine,
                                                            const Metrics& metrics) {
  const auto parsed = MetricsAddress::parse(address);
  if (!parsed) return tl::unexpected(parsed.error());
  auto listening = parsed->listen();
  if (!listening) return tl::unexpected(listening.error());
  shm::UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return fail_errno(errno, "cannot create an eventfd");
  std::unique_ptr<MetricsServer> server(
      new MetricsServer(metrics, std::move(listening->socket), std::move(stop)));
  server->url_ = "http://" + parsed->to_string(listening->port) + "/metrics";
  auto thread = start_thread([self = server.get()] { self->run(); }, "the thread that serves the metrics",
                             [self = server.get(), confine] {
                               pthread_setname_np(pthread_self(), "metrics");
                               if (confine) self->confinement_ = confine_helper_thread();
                             });
  if (!thread) return tl::unexpected(thread.error());
  server->thread_ = std::move(*thread);
  return server;
}

MetricsServer::MetricsServer(const Metrics& metrics, shm::UniqueFd listener, shm::UniqueFd stop)
    : metrics_(&metrics), listener_(std::move(listener)), stop_(std::move(stop)) {}

MetricsServer::~MetricsServer() {
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  static_cast<void>(!write(stop_.get(), &one, sizeof(one)));
  thread_.join();
}

void MetricsServer::run() {
  std::vector<pollfd> polled;
  for (;;) {
    polled.assign({{.fd = listener_.get(), .events = POLLIN, .revents = 0},
                   {.fd = stop_.get(), .events = POLLIN, .revents = 0}});
    for (const Connection& connection : connections_) {
      const bool is_sending = connection.sent < connection.response.size();
      polled.push_back({.fd = connection.socket.get(),
                        .events = static_cast<short>(is_sending ? POLLOUT : POLLIN),
                        .revents = 0});
    }
    const std::uint64_t now_ns = shm::now_ns();
    const std::uint64_t due_ns = connections_.empty() ? 0 : connections_.front().deadline_ns;
    const int wait_ms = connections_.empty() ? -1
                        : due_ns <= now_ns   ? 0
                                             : static_cast<int>((due_ns - now_ns) / shm::kMillisecond + 1);
    if (poll(polled.data(), polled.size(), wait_ms) < 0 && errno != EINTR) return;
    if (polled[1].revents != 0) return;
    for (std::size_t i = connections_.size(); i-- > 0;)
      if (polled[i + 2].revents != 0 && !go_on(connections_[i]))
        connections_.erase(connections_.begin() + static_cast<std::ptrdiff_t>(i));
    while (!connections_.empty() && connections_.front().deadline_ns <= shm::now_ns())
      connections_.pop_front();
    if (polled[0].revents != 0) accept_some();
  }
}

// Answers at once a request that is there when its connection is accepted, as a scrape's mostly is: such a
// connection is never the oldest, which makes room for others.
void MetricsServer::accept_some() {
  for (int i = 0; i < kAcceptBatch; ++i) {
    shm::UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket && (errno == EMFILE || errno == ENFILE) && !connections_.empty()) {
      connections_.pop_front();
      continue;
    }
    if (!socket && errno != EAGAIN) poll(nullptr, 0, kPauseMs);  // it would be tried again at once
    if (!socket) return;
    if (connections_.size() == kMaxConnections) connections_.pop_front();
    Connection connection;
    connection.socket = std::move(socket);
    connection.deadline_ns = shm::now_ns() + kPatienceNs;
    if (go_on(connection)) connections_.push_back(std::move(connection));
  }
}

// Reads the request, writes the response, and then reads on until the other end closes: closing first, with
// something unread, would take the response back. False: it is over.
bool MetricsServer::go_on(Connection& connection) const {
  std::array<char, 4096> bytes;
  for (int i = 0; i < kStepBatch; ++i) {
    if (connection.sent < connection.response.size()) {
      const ssize_t sent = send(connection.socket.get(), connection.response.data() + connection.sent,
                                connection.response.size() - connection.sent, MSG_NOSIGNAL);
      if (sent < 0) return errno == EAGAIN;
      connection.sent += static_cast<std::size_t>(sent);
      if (connection.sent == connection.response.size()) shutdown(connection.socket.get(), SHUT_WR);
      continue;
    }
    const ssize_t count = recv(connection.socket.get(), bytes.data(), bytes.size(), 0);
    if (count <= 0) return count < 0 && errno == EAGAIN;
    if (!connection.response.empty()) continue;
    connection.request.append(bytes.data(), static_cast<std::size_t>(count));
    if (is_whole(connection.request))
      connection.response = respond_to(connection.request);
    else if (connection.request.size() > kMaxRequest)
      return false;
  }
  return true;
}

std::string MetricsServer::respond_to(std::string_view request) const {
  constexpr std::string_view kText = "text/plain; charset=utf-8";
  const std::string_view line = request.substr(0, request.find_first_of("\r\n"));
  const std::string_view method = line.substr(0, line.find(' '));
  const std::string_view rest = line.substr(std::min(line.size(), method.size() + 1));
  const std::string_view target = rest.substr(0, rest.find_first_of(" ?"));
  const bool is_head = method == "HEAD";
  if (line.find(" HTTP/1.") == std::string_view::npos)
    return response_of("400 Bad Request", kText, "this is not HTTP/1.1\n", is_head);
  if (method != "GET" && !is_head)
    return response_of("405 Method Not Allowed", kText, "GET or HEAD\n", is_head);
  if (target != "/metrics") return response_of("404 Not Found", kText, "there is /metrics only\n", is_head);
  return response_of("200 OK", "text/plain; version=0.0.4; charset=utf-8", metrics_->text(), is_head);
}

}  // namespace nvr::daemon
