// Where metrics are served: "127.0.0.1:9464", "localhost:9464", "[::1]:9464". Addresses by number only: a
// name would have to be asked for.
#pragma once

#include <sys/socket.h>

#include <string>

#include "nvr/error.h"
#include "shm/unique_fd.h"

namespace nvr::daemon {

struct MetricsAddress {
  std::string host;  // without brackets
  std::uint16_t port = 0;
  bool is_ipv6 = false;

  // InvalidArgument, naming the text and what it should look like. Port 0: any that is free.
  [[nodiscard]] static Result<MetricsAddress> parse(const std::string& text);
  // As it was, with this port.
  [[nodiscard]] std::string to_string(int with_port) const;
  struct Listening {
    shm::UniqueFd socket;  // non-blocking
    std::uint16_t port = 0;
  };
  [[nodiscard]] Result<Listening> listen() const;
};

}  // namespace nvr::daemon
