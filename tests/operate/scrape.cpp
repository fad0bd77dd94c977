#include "tests/operate/scrape.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <sstream>

namespace nvr::test {

std::string metrics_url(const DaemonProcess& daemon) {
  constexpr std::string_view kBefore = "metrics: ";
  const std::string log = daemon.log();
  const auto at = log.find(kBefore);
  if (at == std::string::npos) throw TestFailure("the daemon names no address of metrics:\n" + log);
  return log.substr(at + kBefore.size(), log.find('\n', at) - at - kBefore.size());
}

std::string http_get(const std::string& url) {
  constexpr std::string_view kHost = "http://127.0.0.1:";
  const auto slash = url.find('/', kHost.size());
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(url.substr(kHost.size()))));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const shm::UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience = {.tv_sec = kLongEnough.count(), .tv_usec = 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    throw TestFailure("cannot connect to " + url);
  const std::string request = "GET " + url.substr(slash) + " HTTP/1.0\r\n\r\n";
  if (send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0)
    throw TestFailure("cannot ask " + url);
  std::string answer;
  std::array<char, 16384> part;
  for (ssize_t length = 0; (length = read(socket.get(), part.data(), part.size())) > 0;)
    answer.append(part.data(), static_cast<std::size_t>(length));
  const auto body = answer.find("\r\n\r\n");
  if (answer.substr(0, answer.find('\r')).find(" 200 ") == std::string::npos || body == std::string::npos)
    throw TestFailure(url + " answers: " + answer.substr(0, 200));
  return answer.substr(body + 4);
}

Samples scrape(const DaemonProcess& daemon) {
  Samples samples;
  std::istringstream lines(http_get(metrics_url(daemon)));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with('#')) continue;
    const auto space = line.rfind(' ');
    samples[line.substr(0, space)] = std::stod(line.substr(space + 1));
  }
  return samples;
}

}  // namespace nvr::test
