// Orders for a running disk: a Unix stream socket that takes an order a line, in a thread of its own, and the
// other end of it. Each order is answered with "ok" or "error: ..." on a line, any further lines, and an
// empty one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "nvr/error.h"
#include "shm/unique_fd.h"

namespace nvr::slowdisk {

class ControlServer {
 public:
  // Does as the line says; what there is to say about it. Called in the server's thread.
  using Follow = std::function<Result<std::string>(const std::string& line)>;

  // Only the user who runs it may connect. A socket that nobody listens to is replaced, nothing else is.
  static Result<std::unique_ptr<ControlServer>> create(const std::string& path, Follow follow);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

 private:
  ControlServer(std::string path, Follow follow, shm::UniqueFd listener, shm::UniqueFd stop);
  void run();
  void serve(int connection);

  std::string path_;
  Follow follow_;
  shm::UniqueFd listener_;
  shm::UniqueFd stop_;
  std::thread thread_;
};

// Gives one order and waits for its answer. Unavailable when nobody listens.
[[nodiscard]] Result<std::string> send_order(const std::string& path, const std::string& line);

}  // namespace nvr::slowdisk
