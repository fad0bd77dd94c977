#include "daemon/metrics_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include <charconv>
#include <utility>

namespace nvr::daemon {

Result<MetricsAddress> MetricsAddress::parse(const std::string& text) {
  const auto wrong = fail(Code::kInvalidArgument,
                          "'" + text + "' is no address: HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464");
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return wrong;
  MetricsAddress address;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + colon + 1, end, address.port);
  if (error != std::errc() || rest != end) return wrong;
  address.host = text.substr(0, colon);
  if (address.host == "localhost") address.host = "127.0.0.1";
  address.is_ipv6 = address.host.starts_with('[') && address.host.ends_with(']');
  if (address.is_ipv6) address.host = address.host.substr(1, address.host.size() - 2);
  in6_addr binary = {};
  if (inet_pton(address.is_ipv6 ? AF_INET6 : AF_INET, address.host.c_str(), &binary) != 1) return wrong;
  return address;
}

std::string MetricsAddress::to_string(int with_port) const {
  return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(with_port);
}

Result<MetricsAddress::Listening> MetricsAddress::listen() const {
  sockaddr_in v4 = {};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  sockaddr_in6 v6 = {};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  inet_pton(is_ipv6 ? AF_INET6 : AF_INET, host.c_str(),
            is_ipv6 ? static_cast<void*>(&v6.sin6_addr) : static_cast<void*>(&v4.sin_addr));
  auto* const address = is_ipv6 ? reinterpret_cast<sockaddr*>(&v6) : reinterpret_cast<sockaddr*>(&v4);
  socklen_t length = is_ipv6 ? sizeof(v6) : sizeof(v4);
  shm::UniqueFd socket(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (socket) setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (socket && is_ipv6) setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  if (!socket || bind(socket.get(), address, length) != 0 || ::listen(socket.get(), SOMAXCONN) != 0 ||
      getsockname(socket.get(), address, &length) != 0)
    return fail_errno(errno, "cannot serve metrics at " + to_string(port) + " (--metrics)");
  return Listening{.socket = std::move(socket), .port = ntohs(is_ipv6 ? v6.sin6_port : v4.sin_port)};
}

}  // namespace nvr::daemon
