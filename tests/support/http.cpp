#include "tests/support/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <sstream>

namespace nvr::test {
namespace {

constexpr int kWaitMs = static_cast<int>(std::chrono::milliseconds(kLongEnough).count());

}  // namespace

std::string Reply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

Wire::Wire(std::uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    throw TestFailure("cannot connect to port " + std::to_string(port));
}

bool Wire::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t length = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (length <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(length));
  }
  return true;
}

bool Wire::ask(const std::string& target, const std::vector<std::string>& headers,
               const std::string& method) {
  std::string request = method + " " + target + " HTTP/1.1\r\nHost: here\r\n";
  for (const std::string& header : headers) request += header + "\r\n";
  return send(request + "\r\n");
}

// More bytes. False at the end.
bool Wire::fill() {
  pollfd entry = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
  if (poll(&entry, 1, kWaitMs) != 1) throw TestFailure("nothing comes from the HTTP server");
  char bytes[65536];
  const ssize_t length = recv(fd_.get(), bytes, sizeof(bytes), 0);
  if (length <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(length));
  return true;
}

Reply Wire::receive_head() {
  Reply reply;
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!fill()) return reply;
  }
  std::istringstream lines(buffer_.substr(0, end + 2));
  buffer_.erase(0, end + 4);
  std::string line;
  std::getline(lines, line);
  if (!line.starts_with("HTTP/1.")) throw TestFailure("no HTTP: " + line);
  reply.status = static_cast<unsigned>(std::stoul(line.substr(9)));
  while (std::getline(lines, line)) {
    const auto colon = line.find(": ");
    if (colon == std::string::npos) throw TestFailure("no header: " + line);
    std::string name = line.substr(0, colon);
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    reply.headers[name] = line.substr(colon + 2, line.size() - colon - 3);
  }
  return reply;
}

Reply Wire::receive(bool is_head) {
  Reply reply = receive_head();
  if (reply.status == 0) return reply;
  const std::string length = reply.header("content-length");
  const std::size_t promised = is_head || length.empty() ? 0 : std::stoull(length);
  reply.body = take(promised);
  reply.is_complete = reply.body.size() == promised;
  return reply;
}

std::string Wire::take(std::size_t most) {
  while (buffer_.size() < most && fill()) {
  }
  std::string taken = buffer_.substr(0, most);
  buffer_.erase(0, most);
  return taken;
}

bool Wire::has_news() const {
  pollfd entry = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
  return !buffer_.empty() || poll(&entry, 1, 0) == 1;
}

bool Wire::is_closed_by_peer() {
  try {
    while (fill()) buffer_.clear();
  } catch (const TestFailure&) {
    return false;
  }
  return true;
}

std::string http_get(const std::string& url) {
  constexpr std::string_view kHost = "http://127.0.0.1:";
  const auto slash = url.find('/', kHost.size());
  Wire wire(static_cast<std::uint16_t>(std::stoul(url.substr(kHost.size()))));
  wire.send("GET " + url.substr(slash) + " HTTP/1.0\r\n\r\n");
  const Reply reply = wire.receive_head();
  std::string body = wire.take(std::string::npos);
  if (reply.status != 200)
    throw TestFailure(url + " answers " + std::to_string(reply.status) + ": " + body.substr(0, 200));
  return body;
}

Samples samples_of(const std::string& metrics) {
  Samples samples;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    const auto space = line.rfind(' ');
    samples[line.substr(0, space)] = std::stod(line.substr(space + 1));
  }
  return samples;
}

}  // namespace nvr::test
