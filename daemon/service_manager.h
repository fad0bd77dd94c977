// Tells the service manager (systemd) how the daemon is, as sd_notify(3) does, but without waiting. sd_notify
// waits while the manager does not read, as when it hangs on the disk that fails.
//
// Control thread only.
#pragma once

#include <cstdint>
#include <string>

namespace nvr::daemon {

class ServiceManager {
 public:
  ServiceManager();

  // Lines of sd_notify. What the manager has no room for is told later, by go_on().
  void tell(std::string state);
  // It lives. What cannot be told now is not worth telling later.
  void tell_alive();

  void go_on();
  // When to call go_on(), at the latest; UINT64_MAX: no need.
  [[nodiscard]] std::uint64_t next_ns() const { return next_ns_; }

 private:
  [[nodiscard]] bool send(const std::string& state) const;

  std::string path_;  // empty: there is no manager
  std::string owed_;
  std::uint64_t next_ns_ = UINT64_MAX;
};

}  // namespace nvr::daemon
