// A client of HTTP that is in the hand of the test: every byte that it sends, and when it reads.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "shm/unique_fd.h"
#include "tests/support/environment.h"

namespace nvr::test {

struct Reply {
  unsigned status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  bool is_complete = false;  // as long as Content-Length says

  [[nodiscard]] std::string header(const std::string& name) const;
};

// One connection. Its calls throw TestFailure when nothing happens for long.
class Wire {
 public:
  explicit Wire(std::uint16_t port);

  // False when the other end has closed it.
  bool send(std::string_view bytes);
  bool ask(const std::string& target, const std::vector<std::string>& headers = {},
           const std::string& method = "GET");
  // The next response, its body included. status 0 when the connection ends before one has begun.
  [[nodiscard]] Reply receive(bool is_head = false);
  // The head of the next response; then take() reads of its body what there is, up to `most`: fewer bytes are
  // its end.
  [[nodiscard]] Reply receive_head();
  [[nodiscard]] std::string take(std::size_t most);
  // Has anything come, the end included, that was not received yet?
  [[nodiscard]] bool has_news() const;
  // Reads on until the other end closes it. False when it does not.
  [[nodiscard]] bool is_closed_by_peer();

 private:
  bool fill();

  shm::UniqueFd fd_;
  std::string buffer_;
};

// The body of the answer to GET of `url` (http://127.0.0.1:PORT/...). Throws when the answer is not 200.
[[nodiscard]] std::string http_get(const std::string& url);

// Prometheus' series as they are written ("nvr_readerd_opens_total{result=\"NotFound\"}") and their values.
using Samples = std::map<std::string, double>;
[[nodiscard]] Samples samples_of(const std::string& metrics);

}  // namespace nvr::test
